// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';

/** Members of this group see and control every user's calls, as root does. */
const GROUP = 'agentrm';

/**
 * Whether a user may see what is not its own: root, or a member of the group `agentrm`. Looked up at
 * each question, so that a change of membership needs no restart.
 */
export function isOperator(uid: number, gid: number, etc = '/etc'): boolean {
  if (uid === 0) return true;
  const group = fields(`${etc}/group`).find((entry) => entry[0] === GROUP);
  if (group === undefined) return false;
  if (Number(group[2]) === gid) return true;
  const name = fields(`${etc}/passwd`).find((entry) => Number(entry[2]) === uid)?.[0];
  return name !== undefined && (group[3] ?? '').split(',').includes(name);
}

function fields(path: string): string[][] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split(':'));
  } catch {
    return [];
  }
}
