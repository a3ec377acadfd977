// SPDX-License-Identifier: Apache-2.0
import { LEAST_OVER_BYTES } from './pool.ts';
import { awakeBytes } from './shortage.ts';

/*
 * Where the kernel looks who charges: memory.high of all calls together. It is at the lowest line of a call. Who may go on
 * beyond it would sleep there, so it follows the usage; and who may go on must not lose the text of its program to it.
 */

export interface TripwireUse {
  readonly budgetBytes: number;
  /** Of all calls that there are, without a grant; infinite where nobody could make room for another. */
  readonly lowestLineBytes: number;
  /** The lowest line of a call that grows, of those that are above what is used; infinite where there is none. */
  readonly nextLineBytes: number;
  /** What all calls use, page cache too; 0 while that does not matter. */
  readonly currentBytes: number;
  /** What the host could bear beyond the budget. */
  readonly hostRoomBytes: number;
  /** What reclaim takes is needed again: the usage stays where the tripwire is, and those who may go on get nowhere. */
  readonly thrashes: boolean;
}

/** Within the budget, or what the host can bear. */
export function tripwireBytes(use: TripwireUse): number {
  const { budgetBytes, lowestLineBytes, nextLineBytes, currentBytes, hostRoomBytes, thrashes } = use;
  const awake = awakeBytes(budgetBytes);
  const most = hostRoomBytes >= LEAST_OVER_BYTES ? Infinity : awake;
  // Within half of what nobody sleeps for: behind, who takes more is still seen at once; ahead, it can.
  const half = (budgetBytes - awake) / 2;
  const follow = thrashes ? Math.min(currentBytes + half, nextLineBytes) : currentBytes - half;
  return Math.floor(Math.max(Math.min(lowestLineBytes, awake), Math.min(follow, most)));
}

/** What makes no difference: at each look the usage is another. Of a call's line the tripwire stands exactly there. */
export function standsAt(
  bytes: number,
  { budgetBytes, thrashes }: TripwireUse,
  standsBytes: number,
): boolean {
  const near = thrashes ? 0 : (budgetBytes - awakeBytes(budgetBytes)) / 8;
  return Math.abs(bytes - standsBytes) <= near;
}
