// SPDX-License-Identifier: Apache-2.0

/*
 * A session is one user's and has a name: the same id of two users is two sessions. Both halves know it by this key,
 * which a request cannot make up for another user: the uid is the kernel's word on either side.
 */

/** In place of the uid of a peer that the kernel does not know. */
const UNKNOWN = '-';

/** @param uid null: not known. */
export function sessionKey(uid: number | null, id: string): string {
  return `${uid ?? UNKNOWN}:${id}`;
}

/** The parts of a {@link sessionKey}. */
export function sessionName(key: string): { readonly uid: number | null; readonly id: string } {
  const colon = key.indexOf(':');
  const user = key.slice(0, colon);
  return { uid: user === UNKNOWN ? null : Number(user), id: key.slice(colon + 1) };
}

/** Whether a {@link sessionKey} is of this user. */
export function isOf(uid: number): (key: string) => boolean {
  const prefix = sessionKey(uid, '');
  return (key) => key.startsWith(prefix);
}
