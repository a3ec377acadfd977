// SPDX-License-Identifier: Apache-2.0

export interface PoolDemand {
  /** What can be lent now. */
  readonly roomBytes: number;
  /** Calls that wait for admission. */
  readonly waitingCalls: number;
  /** Calls frozen for want of memory: nothing could be lent to them, or they make room for others. */
  readonly unservedCalls: number;
}

/** Whether somebody wants memory that the pool does not have, or the next one would: no time for more work. */
export function isPoolShort({ roomBytes, waitingCalls, unservedCalls }: PoolDemand): boolean {
  return roomBytes <= 0 || waitingCalls > 0 || unservedCalls > 0;
}
