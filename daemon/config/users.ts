// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';

/**
 * The uid of a local user, or undefined. Only /etc/passwd is asked: whoever keeps users elsewhere writes
 * their uid in the configuration.
 * @throws Error with errno if the file cannot be read.
 */
export function uidOfUser(name: string, passwd = '/etc/passwd'): number | undefined {
  return idsOfUser(name, passwd)?.uid;
}

/** The uid and the primary gid of a local user, or undefined; see {@link uidOfUser}. */
export function idsOfUser(name: string, passwd = '/etc/passwd'): { uid: number; gid: number } | undefined {
  for (const line of readFileSync(passwd, 'utf8').split('\n')) {
    const [user, , uid, gid] = line.split(':');
    if (user === name && isId(uid) && isId(gid)) return { uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}

function isId(text: string | undefined): boolean {
  return text !== undefined && /^\d{1,10}$/.test(text);
}
