// SPDX-License-Identifier: Apache-2.0

export interface PoolDemand {
  /** What can be lent now. */
  readonly roomBytes: number;
  /** Calls that wait for admission. */
  readonly waitingCalls: number;
  /** Frozen calls to which nothing could be lent. */
  readonly unservedCalls: number;
}

/** Whether somebody wants memory that the pool does not have, or the next one would: no time for more work. */
export function isPoolShort({ roomBytes, waitingCalls, unservedCalls }: PoolDemand): boolean {
  return roomBytes <= 0 || waitingCalls > 0 || unservedCalls > 0;
}
