// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import type { Native } from '../kernel/native.ts';

/** node:net has no public way to the descriptor; `_handle.fd` has been there since Node 0.x. */
export function descriptorOf(socket: Socket): number | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  return fd !== undefined && fd >= 0 ? fd : undefined;
}

/**
 * Who is at the other end of a unix socket, as the kernel says.
 * @returns undefined if that cannot be told.
 */
export function userOf(native: Native, socket: Socket): { uid: number; gid: number } | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined) return undefined;
  try {
    const { uid, gid, pidfd } = native.peerCred(fd);
    if (pidfd >= 0) closeSync(pidfd);
    return { uid, gid };
  } catch {
    return undefined;
  }
}
