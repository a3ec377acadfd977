// SPDX-License-Identifier: Apache-2.0

/** The memory that all calls on the host share. */
export interface PoolSettings {
  /** What all calls together may hold. */
  readonly budgetBytes: number;
  /** What the host must keep available whatever the budget says: a host at 0 thrashes for everybody. */
  readonly keepAvailableBytes: number;
}

/** Room on the host that is worth going over the budget for: what one task charges in a few milliseconds. */
export const LEAST_OVER_BYTES = 16 * 1024 * 1024;

export interface PoolCall {
  readonly usageBytes: number;
  /** Part of the usage that the kernel can take back at once: its page cache. */
  readonly reclaimableBytes?: number;
  /** memory.high as it is now, with what was lent. */
  readonly highBytes: number;
  /** The freeze line as it is now, up to which a call that was lent to can grow. Default: memory.high. */
  readonly freezeLineBytes?: number;
  readonly declaredHighBytes: number;
}

export interface Pool {
  readonly usedBytes: number;
  /** Lent and not used yet: it may be used at any moment without a further question. */
  readonly promisedBytes: number;
  /** What can be lent now. */
  readonly roomBytes: number;
  /** What the host could bear over the budget, for a call that has waited too long. */
  readonly hostRoomBytes: number;
}

/**
 * What the pool has. A call's own memory.high is not set aside for it: most calls use a small part of it,
 * and setting it aside would fill the pool with calls that sleep. What was lent beyond it is.
 * @param host MemAvailable of /proc/meminfo, which has the calls' usage already taken off.
 */
export function poolState(
  host: { readonly memAvailableBytes: number },
  calls: Iterable<PoolCall>,
  settings: PoolSettings,
): Pool {
  let usedBytes = 0;
  let promisedBytes = 0;
  for (const call of calls) {
    usedBytes += Math.max(0, call.usageBytes - (call.reclaimableBytes ?? 0));
    if (call.highBytes > call.declaredHighBytes) {
      const lineBytes = call.freezeLineBytes ?? call.highBytes;
      promisedBytes += atLeast0(lineBytes - Math.max(call.declaredHighBytes, call.usageBytes));
    }
  }
  const hostRoomBytes = atLeast0(host.memAvailableBytes - settings.keepAvailableBytes - promisedBytes);
  const budgetRoomBytes = atLeast0(settings.budgetBytes - usedBytes - promisedBytes);
  return { usedBytes, promisedBytes, roomBytes: Math.min(hostRoomBytes, budgetRoomBytes), hostRoomBytes };
}

/** The pool for who may use it up to a line only: what is left then is for others. */
export function poolUpTo(pool: Pool, lineBytes: number): Pool {
  const roomBytes = atLeast0(lineBytes - pool.usedBytes - pool.promisedBytes);
  return { ...pool, roomBytes: Math.min(pool.roomBytes, roomBytes) };
}

function atLeast0(bytes: number): number {
  return Math.max(0, bytes);
}
