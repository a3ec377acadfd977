// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';

/**
 * The uid of a local user, or undefined. Only /etc/passwd is asked: whoever keeps users elsewhere writes
 * their uid in the configuration.
 * @throws Error with errno if the file cannot be read.
 */
export function uidOfUser(name: string, passwd = '/etc/passwd'): number | undefined {
  for (const line of readFileSync(passwd, 'utf8').split('\n')) {
    const [user, , uid] = line.split(':');
    if (user === name && uid !== undefined && /^\d{1,10}$/.test(uid)) return Number(uid);
  }
  return undefined;
}
