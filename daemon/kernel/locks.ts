// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';

/** A process that waits for a file lock which another one holds. */
export interface BlockedLock {
  readonly holder: number;
  readonly waiter: number;
}

/** The type of a lock in /proc/locks; leases and delegations hold up nobody who could be told by a pid. */
const LOCK = /^(\d+):( *-> )? *(?:FLOCK|POSIX|OFDLCK) .*? (-?\d+) [\da-f]+:[\da-f]+:\d+ /;

/**
 * Who waits for whose file lock, from /proc/locks (proc_locks(5)): a line of a lock is followed by those, with an
 * arrow, of who waits for it. An open file description's lock (OFDLCK) has no process: it is left out.
 * @returns nothing if the file cannot be read: the kernel may be built without it.
 */
export function blockedLocks(procRoot = '/proc'): BlockedLock[] {
  let text: string;
  try {
    text = readFileSync(`${procRoot}/locks`, 'latin1');
  } catch {
    return [];
  }
  const blocked: BlockedLock[] = [];
  let held: { readonly number: string; readonly pid: number } | undefined;
  for (const line of text.split('\n')) {
    const match = LOCK.exec(line);
    if (match === null) continue;
    const [, number = '', arrow, pidText = ''] = match;
    const pid = Number(pidText);
    if (arrow === undefined) held = { number, pid };
    else if (held?.number === number && held.pid > 0 && pid > 0)
      blocked.push({ holder: held.pid, waiter: pid });
  }
  return blocked;
}
