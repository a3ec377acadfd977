// SPDX-License-Identifier: Apache-2.0
import { formatBytes, formatMs } from '../units.ts';
import type { Patience } from './patience.ts';
import {
  byPrecedence,
  type Claimant,
  classOrder,
  type Grant,
  type LineUse,
  lowestLine,
  poolLines,
  type StepSettings,
  stepBytes,
} from './pool-lines.ts';

/*
 * What to do when all calls together want more than the pool has. Calls have an order, by class and then by age, and
 * each but the first has a line: once the pool is used up to it, the call is frozen if it still grows. The lines are
 * graded, so that the last in order stops first, and what is left then is for those before it. Kept for calls that hold
 * still, it would leave two others stopped half-way, each with what the other lacks: so whoever was stopped goes on as
 * soon as those before it leave room. A call that does not grow is never touched, and the first in order is never
 * frozen.
 */

export interface ShortageSettings extends StepSettings {
  /** A frozen call goes on once there is this much room below its line. */
  readonly roomPercent: number;
  /** No freeze is shorter: what it takes to hand a call to the freezer and back should be little beside it. */
  readonly leastFreezeMs: number;
  /** After this long others take their turn, or memory beyond the budget is used. */
  readonly rotateMs: number;
  /** How long a call may then go on, whatever the pool has. */
  readonly passMs: number;
  /** A call that is frozen for so long is killed, if nothing else helps. */
  readonly deadlineMs: number;
  /** How long the first in order may be held up by a pool that is used up before another is killed for it. */
  readonly lastResortMs: number;
}

/** A call as the pool sees it. */
export interface PoolMember extends Claimant {
  /** By how much its usage has grown since it was looked at last. */
  readonly grownBytes: number;
  /** When it was last seen to grow. */
  readonly grewAtMs: number;
  /** What a kill of it would free beyond what its session is guaranteed. */
  readonly freeableBytes: number;
  /** Since when it is frozen for the pool, if it is. */
  readonly frozenSinceMs: number | undefined;
  /** For how long it is to stay so before it is tried, and since when it has got nowhere (`patience.ts`). */
  readonly patience: Pick<Patience, 'ms' | 'tries' | 'stuckSinceMs'>;
  /** Frozen at a line of its own: it runs no more than one frozen for the pool does. */
  readonly held: boolean;
  /** It may go on until then, whatever the pool has. */
  readonly passUntilMs: number;
  /** A task outside waits for a file lock that it holds. */
  readonly blocksOthers: boolean;
  /** It is dying: what it holds is coming back. */
  readonly killed: boolean;
}

/** Used is what all calls hold, without page cache that the kernel can take back at once. */
export interface PoolUse extends LineUse {
  /** What the host could bear beyond the budget. */
  readonly hostRoomBytes: number;
  /** Since when the first in order has wanted to grow and the pool was used up, if it has. */
  readonly exhaustedSinceMs: number | undefined;
  /** The kernel stops at the next charge who is over its line. Else a call that is tried may grow until the next look. */
  readonly stopsAtCharge: boolean;
  /** A limit on all calls is so near that the kernel may kill at any moment, and not the last in order. */
  readonly cornered: boolean;
}

export type ShortageAction<M extends PoolMember> =
  | { readonly action: 'freeze'; readonly member: M; readonly reason: string }
  | { readonly action: 'kill'; readonly member: M; readonly reason: string }
  | { readonly action: 'thaw'; readonly member: M; readonly grant: Grant; readonly reason: string }
  | { readonly action: 'pass'; readonly member: M; readonly untilMs: number; readonly reason: string };

/** Less growth between two looks is the noise of per-CPU charges, 64 pages each (MEMCG_CHARGE_BATCH). */
const GROWS_BYTES = 256 * 1024;

/**
 * How far the kernel lets a task go beyond memory.high without putting it to sleep, in per cent, and a little less: from
 * 1.25 % on the penalty is over 10 ms (mm/memcontrol.c).
 */
const AWAKE_PERCENT = 1.2;

/** Who was tried in vain for so long gets what is left. */
const STUCK_MS = 500;

/** What is left is worth nothing below: a few tasks would not get on with it. */
const LEAST_REST_BYTES = 1024 * 1024;

/** Bursts of builds and tests last for one to three seconds (AgentCgroup's measurements). */
const BURST_MS = 2000;

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
export function isExhausted(members: readonly PoolMember[], use: PoolUse, nowMs: number): boolean {
  const [first] = [...members].sort(byPrecedence);
  if (first === undefined || first.killed) return false;
  if (first.held) return true;
  return use.usedBytes >= use.budgetBytes * NEARLY && nowMs - first.grewAtMs <= LONGEST_SLEEP_MS;
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
  const lines = poolLines(order, use, settings);
  const ranked = order.map((member, rank) => ({ member, line: lines.get(member), first: rank === 0 }));
  const actions: ShortageAction<M>[] = [];

  // From the end: as few as the shortage needs. At the last step there is no time for one after the other.
  const urgent = use.usedBytes > use.budgetBytes - stepBytes(use.budgetBytes, settings);
  for (const { member, line, first } of ranked.toReversed()) {
    if (first || use.usedBytes <= (line?.bytes ?? 0) || !grows(member, nowMs)) continue;
    actions.push({ action: 'freeze', member, reason: shortOf(use) });
    if (!urgent) break;
  }
  if (actions.length > 0) return actions;

  const roomBytes = (use.budgetBytes * settings.roomPercent) / 100;
  const stepOf = stepBytes(use.budgetBytes, settings);
  const triableBytes = use.budgetBytes - stepOf / 2 - use.usedBytes;
  const stuck = order.filter((member) => member.frozenSinceMs !== undefined && !member.killed);
  // Before one of them takes what is left it is known who does not need it; and who goes on may give something back.
  const triable = use.stopsAtCharge && triableBytes >= 0;
  const untried = triable && stuck.some(({ patience }) => patience.tries === 0);
  const going = order.slice(1).filter((member) => !isFrozen(member) && !member.killed);
  const trying = going.some(({ grant }) => grant?.kind === 'try');
  let ahead = false;
  for (const { member, line, first } of ranked) {
    const { frozenSinceMs } = member;
    if (frozenSinceMs === undefined || member.killed || line === undefined) continue;
    const frozenMs = nowMs - frozenSinceMs;
    const stuckMs = nowMs - member.patience.stuckSinceMs;
    if (member.blocksOthers) {
      const untilMs = nowMs + settings.passMs;
      return [{ action: 'pass', member, untilMs, reason: 'another call waits for its lock' }];
    }
    const thaw = (grant: Grant, reason: string) => [{ action: 'thaw', member, grant, reason }] as const;
    if (first) return [...thaw({ kind: 'relaxed' }, 'first in order')];
    // One at a time: how much it takes is known at the next look.
    const wantedBytes = use.usedBytes + roomBytes;
    if (frozenMs >= settings.leastFreezeMs) {
      const free = wantedBytes <= line.gradedBytes;
      const left = wantedBytes <= line.relaxedBytes && !untried && (!trying || stuckMs >= BURST_MS);
      if (free || left) return [...thaw({ kind: 'relaxed' }, 'room in the pool')];
    }
    if (triable && frozenMs >= member.patience.ms) {
      // Less each time, or all that is left would go to tries.
      const growBytes = Math.min((stepOf / 4) * (settings.leastFreezeMs / member.patience.ms), triableBytes);
      return [...thaw({ kind: 'try', growBytes }, 'it may not grow any more')];
    }
    if (stuckMs >= settings.rotateMs) {
      const untilMs = nowMs + settings.passMs;
      const waited = `frozen for ${formatMs(stuckMs)}`;
      if (use.hostRoomBytes >= roomBytes) {
        return [{ action: 'pass', member, untilMs, reason: `${waited}, over the budget` }];
      }
      const others = order.slice(1).filter((one) => classOrder(one) === classOrder(member));
      const other = others.findLast((one) => grows(one, nowMs));
      if (other !== undefined) {
        return [
          { action: 'pass', member, untilMs, reason: `${waited}, its turn` },
          { action: 'freeze', member: other, reason: 'others take their turn' },
        ];
      }
    }
    const due =
      stuckMs >= (going.length > 0 ? settings.rotateMs : STUCK_MS) && line.restBytes > line.relaxedBytes;
    if (!ahead && !untried && due && use.usedBytes + LEAST_REST_BYTES <= line.restBytes) {
      return [...thaw({ kind: 'rest' }, 'what is left of the pool')];
    }
    ahead = true;
  }
  return lastResort(order, use, nowMs, settings);
}

/** A kill of last resort: by class, then by what it frees. Nobody else is killed while one is dying. */
function lastResort<M extends PoolMember>(
  order: readonly M[],
  use: PoolUse,
  nowMs: number,
  settings: ShortageSettings,
): ShortageAction<M>[] {
  if (order.some((member) => member.killed)) return [];
  const exhaustedMs = use.exhaustedSinceMs === undefined ? 0 : nowMs - use.exhaustedSinceMs;
  if (exhaustedMs >= settings.lastResortMs || (use.cornered && use.exhaustedSinceMs !== undefined)) {
    const victim = victimOf(order.slice(1));
    if (victim !== undefined) {
      const freed = formatBytes(victim.freeableBytes);
      return [
        {
          action: 'kill',
          member: victim,
          reason: `host memory short, ${freed} of it for a call that comes first`,
        },
      ];
    }
  }
  const expired = order.findLast(
    ({ frozenSinceMs, patience }) =>
      frozenSinceMs !== undefined && nowMs - patience.stuckSinceMs >= settings.deadlineMs,
  );
  if (expired === undefined) return [];
  const waited = formatMs(nowMs - expired.patience.stuckSinceMs);
  return [{ action: 'kill', member: expired, reason: `host memory short, frozen for ${waited}` }];
}

function victimOf<M extends PoolMember>(candidates: readonly M[]): M | undefined {
  const worst = Math.max(...candidates.map(classOrder));
  const lowest = candidates.filter((member) => classOrder(member) === worst && member.freeableBytes > 0);
  return lowest.reduce<M | undefined>(
    (most, member) => (most === undefined || member.freeableBytes > most.freeableBytes ? member : most),
    undefined,
  );
}

function grows(member: PoolMember, nowMs: number): boolean {
  return (
    !isFrozen(member) && !member.killed && nowMs >= member.passUntilMs && member.grownBytes >= GROWS_BYTES
  );
}

function isFrozen(member: PoolMember): boolean {
  return member.frozenSinceMs !== undefined || member.held;
}

function shortOf({ usedBytes, budgetBytes }: PoolUse): string {
  return `all calls together use ${formatBytes(usedBytes)} of ${formatBytes(budgetBytes)}`;
}
