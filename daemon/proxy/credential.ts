// SPDX-License-Identifier: Apache-2.0
import { createHmac } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** Long enough that two credentials of one host never meet, and short in logs. */
const NAME_CHARACTERS = 22;

/**
 * What a caller's credential is called in tables, logs and metrics: a hash under a key of this installation,
 * from which nobody gets it back. The credential itself is in the request and nowhere else.
 */
export function credentialName(key: Buffer, headers: IncomingHttpHeaders): string {
  const hmac = createHmac('sha256', key);
  for (const name of ['x-api-key', 'authorization'] as const) {
    const value = headers[name];
    hmac.update(`${name}=${value === undefined ? '' : String(value)}\n`);
  }
  return hmac.digest('base64url').slice(0, NAME_CHARACTERS);
}
