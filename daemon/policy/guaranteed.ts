// SPDX-License-Identifier: Apache-2.0
import { LEAST_OVER_BYTES } from './pool.ts';
import type { LineUse } from './pool-lines.ts';

/*
 * What a session is guaranteed it does not borrow: while it holds less, its calls do not stop for others. Memory that those
 * have borrowed does not come back for that, so a guarantee is kept with what is left of the pool and of the host,
 * less what the first in order needs to go on.
 */

/** Of a session; one object for all its calls. */
export interface Guarantee {
  readonly bytes: number;
  /** What it may still take of that; 0 if it has all of it, or nearly. */
  readonly leftBytes: number;
}

/** What a dozen tasks may each have under way, 256 KiB: who has less left is soon beyond. */
const MOST_MARGIN_BYTES = 4 * 1024 * 1024;

/** So much of a small guarantee. */
const MARGIN_SHARE = 1 / 8;

/**
 * What a session may still take within its guarantee, in bytes; 0 when that is nearly nothing. Who has come so far has to be
 * as far again below before it counts as within again, or it would be stopped and let go on at each batch of pages.
 * @param heldBytes by the session, without page cache that can be reclaimed.
 * @param within whether it was at the look before.
 */
export function guaranteeLeftBytes(guaranteedBytes: number, heldBytes: number, within: boolean): number {
  const leftBytes = guaranteedBytes - heldBytes;
  const marginBytes = Math.min(MOST_MARGIN_BYTES, guaranteedBytes * MARGIN_SHARE);
  return leftBytes >= (within ? marginBytes : 2 * marginBytes) ? leftBytes : 0;
}

/**
 * Up to where the pool may be used while a session goes on within its guarantee: to the last step of the budget, which is
 * for the first in order, and beyond it as far as the host can bear; but no further beyond what the session is guaranteed
 * than others may take until the next look.
 * @param mostBytes of all guarantees. Those that do not fit are not kept, from the end of the order.
 * @returns asked of one session after the other, in their order: the line, 0 if it has none.
 */
export function guaranteeLines(
  { usedBytes, budgetBytes, hostRoomBytes }: Omit<LineUse, 'overBytes'>,
  stepBytes: number,
  mostBytes: number,
): (guarantee: Guarantee | undefined) => number {
  const lines = new Map<Guarantee, number>();
  let promisedBytes = 0;
  let spareBytes = hostRoomBytes - Math.max(stepBytes, LEAST_OVER_BYTES);
  const lineOf = ({ bytes, leftBytes }: Guarantee): number => {
    promisedBytes += bytes;
    if (leftBytes === 0 || promisedBytes > mostBytes) return 0;
    const overBytes = Math.min(spareBytes, leftBytes + stepBytes + LEAST_OVER_BYTES);
    spareBytes -= leftBytes;
    // In steps, or the kernel would be told at each look.
    const farthestBytes = Math.floor((usedBytes + overBytes) / stepBytes) * stepBytes;
    return Math.max(budgetBytes - stepBytes, farthestBytes);
  };
  return (guarantee) => {
    if (guarantee === undefined) return 0;
    const lineBytes = lines.get(guarantee) ?? lineOf(guarantee);
    lines.set(guarantee, lineBytes);
    return lineBytes;
  };
}
