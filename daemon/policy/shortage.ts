// SPDX-License-Identifier: Apache-2.0
import { formatBytes, formatMs } from '../units.ts';
import { letGoOn } from './go-on.ts';
import { BASELINE_MS } from './patience.ts';
import { LEAST_OVER_BYTES } from './pool.ts';
import { byPrecedence, classOrder, lowestLine, poolLines, stepBytes } from './pool-lines.ts';
import {
  grows,
  type PoolMember,
  type PoolUse,
  type Shortage,
  type ShortageAction,
  type ShortageSettings,
} from './shortage-types.ts';

/*
 * What to do when all calls together want more than the pool has. Calls have an order, by class and then by age, and
 * each but the first has a line: once the pool is used up to it, the call is frozen if it still grows. The lines are
 * graded, so that the last in order stops first, and what is left then is for those before it. Kept for calls that hold
 * still, it would leave two others stopped half-way, each with what the other lacks: so whoever was stopped goes on as
 * soon as those before it leave room. A call that does not grow is never touched, and the first in order is never
 * frozen. Nor is one whose session is within its guarantee, as long as that can be kept (`guaranteed.ts`).
 */

/**
 * How far the kernel lets a task go beyond memory.high without putting it to sleep, in per cent, and a little less: from
 * 1.25 % on the penalty is over 10 ms (mm/memcontrol.c).
 */
const AWAKE_PERCENT = 1.2;

/** Next to nothing: four tasks may each have 256 KiB under way. */
const LEAST_LEFT_BYTES = 1024 * 1024;

/** Enough for a dozen of them. From here on the kernel makes each charge wait, so that a burst takes this in half a second. */
const NEAR_LEFT_BYTES = 4 * 1024 * 1024;

/** What is used up to here has nothing left that a task could charge: 64 pages at a time. */
const NEARLY = 0.998;

/** The kernel's longest throttle sleep is 2 s (MEMCG_MAX_HIGH_DELAY_JIFFIES); a task may wait for a CPU after it. */
const LONGEST_SLEEP_MS = 2500;

/** The highest memory.high up to which nobody sleeps who stays within the budget. */
export function awakeBytes(budgetBytes: number): number {
  return Math.floor(budgetBytes * (1 - AWAKE_PERCENT / 100));
}

/** Whether the pool is so full that its calls have to be looked at often. */
export function nearShortage(
  use: Pick<PoolUse, 'usedBytes' | 'budgetBytes'>,
  settings: ShortageSettings,
): boolean {
  // As far again below the lowest line as that is below the budget.
  const line = lowestLine(use.budgetBytes, settings);
  return use.usedBytes > line - (use.budgetBytes - line);
}

/**
 * Whether the first in order wants more than is left of the pool: it waits frozen for a loan, or it has run into the
 * kernel's throttle. There it may sleep for long and not be seen to grow.
 */
export function isExhausted(
  members: readonly PoolMember[],
  use: Pick<PoolUse, 'usedBytes' | 'budgetBytes'>,
  nowMs: number,
): boolean {
  const [first] = [...members].sort(byPrecedence);
  if (first === undefined || first.killed) return false;
  if (first.held) return true;
  return use.usedBytes >= use.budgetBytes * NEARLY && nowMs - first.grewAtMs <= LONGEST_SLEEP_MS;
}

/**
 * Whether the kernel may kill at any moment, as a limit on all calls is near. What was taken before the pool was used up says
 * little: from there on each charge sleeps, and bursts end. So that counts only when it has been seen how they go on.
 * @param leftBytes to the limit.
 * @param exhaustedMs since when the first in order has wanted more than is left.
 */
export function isCornered(
  members: readonly PoolMember[],
  leftBytes: number,
  exhaustedMs: number,
  stopsAtCharge: boolean,
): boolean {
  // Where lines hold, only the first grows.
  const growing = stopsAtCharge ? [...members].sort(byPrecedence).slice(0, 1) : members;
  const grownBytes = growing.reduce((sum, member) => sum + member.grownBytes, 0);
  if (leftBytes < Math.max(LEAST_LEFT_BYTES, Math.min(4 * grownBytes, NEAR_LEFT_BYTES))) return true;
  return exhaustedMs >= BASELINE_MS && leftBytes < Math.min(2 * grownBytes, LEAST_OVER_BYTES);
}

/**
 * What to do now; in this order: make room, let go on, end what cannot go on.
 * @param members live calls, in any order.
 */
export function decideShortage<M extends PoolMember>(
  members: readonly M[],
  use: PoolUse,
  nowMs: number,
  settings: ShortageSettings,
): ShortageAction<M>[] {
  const order = [...members].sort(byPrecedence);
  const shortage = { order, lines: poolLines(order, use, settings), use, nowMs, settings };
  const stopping = makeRoom(shortage);
  if (stopping.length > 0) return stopping;
  const going = letGoOn(shortage);
  return going.length > 0 ? going : lastResort(shortage);
}

/** Freezes who grows over its line, from the end of the order: as few as the shortage needs, and never the first. */
function makeRoom<M extends PoolMember>(shortage: Shortage<M>): ShortageAction<M>[] {
  const { order, lines, use, nowMs, settings } = shortage;
  const over = order
    .slice(1)
    .filter((member) => use.usedBytes > (lines.get(member)?.bytes ?? 0) && grows(member, nowMs))
    .toReversed();
  // At the last step there is no time for one after the other.
  const urgent = use.usedBytes > use.budgetBytes - stepBytes(use.budgetBytes, settings);
  return (urgent ? over : over.slice(0, 1)).map((member) => ({
    action: 'freeze',
    member,
    reason: shortOf(use),
  }));
}

/** A kill of last resort: by class, then by what it frees. Nobody else is killed while one is dying. */
function lastResort<M extends PoolMember>(shortage: Shortage<M>): ShortageAction<M>[] {
  const { order, use, nowMs, settings } = shortage;
  if (order.some(({ dying }) => dying)) return [];
  const exhaustedMs = use.exhaustedSinceMs === undefined ? 0 : nowMs - use.exhaustedSinceMs;
  if (exhaustedMs >= settings.lastResortMs || (use.cornered && use.exhaustedSinceMs !== undefined)) {
    // Alone, it has its own limit to end it, or the kernel.
    const victim = order.length > 1 ? victimOf(order) : undefined;
    if (victim !== undefined) return kill(victim, shortFor(victim, order));
  }
  const expired = order.findLast(
    ({ frozenSinceMs, patience, killed }) =>
      frozenSinceMs !== undefined && !killed && nowMs - patience.stuckSinceMs >= settings.deadlineMs,
  );
  if (expired === undefined) return [];
  // Who holds memory that one of a higher class has waited for goes before that one; within a class nobody else does.
  const lower = victimOf(order.filter((member) => classOrder(member) > classOrder(expired)));
  if (lower !== undefined) return kill(lower, shortFor(lower, order));
  const waited = formatMs(nowMs - expired.patience.stuckSinceMs);
  return kill(expired, `host memory short, frozen for ${waited}`);
}

function kill<M extends PoolMember>(member: M, reason: string): ShortageAction<M>[] {
  return [{ action: 'kill', member, reason }];
}

function shortFor<M extends PoolMember>(victim: M, [first]: readonly M[]): string {
  const freed = formatBytes(victim.freeableBytes);
  return victim === first
    ? `host memory short, and it holds the most, ${freed}`
    : `host memory short, ${freed} of it for a call that comes first`;
}

function victimOf<M extends PoolMember>(members: readonly M[]): M | undefined {
  // One that frees nothing, as what is left over within its session's guarantee, must not stand before those that do.
  const candidates = members.filter((member) => !member.killed && member.freeableBytes > 0);
  const worst = Math.max(...candidates.map(classOrder));
  const lowest = candidates.filter((member) => classOrder(member) === worst);
  return lowest.reduce<M | undefined>(
    (most, member) => (most === undefined || member.freeableBytes > most.freeableBytes ? member : most),
    undefined,
  );
}

function shortOf({ usedBytes, budgetBytes }: PoolUse): string {
  return `all calls together use ${formatBytes(usedBytes)} of ${formatBytes(budgetBytes)}`;
}
