// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Identity } from './upstream.ts';

/** An authority of its own in `folder`, and a server that it vouches for under these names. */
export function makeCertificate(folder: string, names: string): Identity & { readonly caPath: string } {
  const caPath = join(folder, 'ca.pem');
  const at = (name: string): string => join(folder, name);
  const openssl = (...args: string[]): void => {
    execFileSync(
      'openssl',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', ...args],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
  };
  openssl('-keyout', at('ca.key'), '-out', caPath, '-subj', '/CN=an authority of the tests', '-days', '2');
  const issuer = ['-CA', caPath, '-CAkey', at('ca.key'), '-addext', 'basicConstraints=critical,CA:FALSE'];
  const subject = [
    '-subj',
    '/CN=a model API of the tests',
    '-addext',
    `subjectAltName=${names}`,
    '-days',
    '2',
  ];
  openssl('-keyout', at('server.key'), '-out', at('server.pem'), ...subject, ...issuer);
  return {
    caPath,
    key: readFileSync(at('server.key'), 'utf8'),
    cert: readFileSync(at('server.pem'), 'utf8'),
  };
}
