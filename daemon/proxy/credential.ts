// SPDX-License-Identifier: Apache-2.0
import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** Long enough that two credentials of one host never meet, and short in logs. */
const NAME_CHARACTERS = 22;

/**
 * What a caller's credential is called in tables, logs and metrics: a hash under a key of this installation,
 * from which nobody gets it back. The credential itself is in the request and nowhere else.
 */
export function credentialName(key: string, headers: IncomingHttpHeaders): string {
  const { authorization = '', 'x-api-key': apiKey = '' } = headers;
  // Hashed once over key and credentials: an HMAC costs three times that, and what it guards against besides, that
  // somebody makes another hash of a longer text from this one, needs all of the hash.
  const text = `${key}\n${apiKey}\n${authorization}`;
  return hash('sha256', text, 'base64url').slice(0, NAME_CHARACTERS);
}
