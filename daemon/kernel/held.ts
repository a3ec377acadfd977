// SPDX-License-Identifier: Apache-2.0
import { errnoOf } from '../errors.ts';
import type { Native, PeerCred } from './native.ts';

/*
 * The kernel takes numbers where it means processes (/proc, cgroup.procs), and gives a number to another process as
 * soon as its owner has been reaped. While a pidfd says that it has not, the number is still its own.
 */

type Signals = Pick<Native, 'pidfdSendSignal'>;

/** Whether the process that a pidfd holds has its number still; a zombie does. */
export function isHeld(native: Signals, pidfd: number): boolean {
  try {
    native.pidfdSendSignal(pidfd, 0);
  } catch (error) {
    // EPERM: it is another user's, and there.
    if (errnoOf(error) === 'EPERM') return true;
    if (errnoOf(error) === 'ESRCH') return false;
    throw error;
  }
  return true;
}

/**
 * Reads something of a peer by its number.
 * @returns undefined also if the peer had gone before it was read: it may be another's.
 */
export function readOfPeer<T>(native: Signals, peer: PeerCred, read: (pid: number) => T): T | undefined {
  if (peer.pidfd < 0) return undefined;
  const value = read(peer.pid);
  return isHeld(native, peer.pidfd) ? value : undefined;
}

export function goneError(what: string): Error {
  return Object.assign(new Error(`${what} has gone`), { code: 'ESRCH' });
}
