// SPDX-License-Identifier: Apache-2.0
import { CALL_CLASSES, type CallClass } from '../toolcall/intent.ts';
import { type Guarantee, guaranteeLines } from './guaranteed.ts';

/*
 * Up to where the pool may be used while each call grows. The kernel holds calls to these lines at the charge, so they are
 * drawn before a burst comes: as if everybody before a call wanted to grow. A call that was stopped there is granted
 * more if it turns out that they do not.
 */

/** What puts a call before or behind another. */
export interface Precedence {
  readonly class: CallClass;
  /** Its shell has ended: what is left of it comes last. */
  readonly leftover: boolean;
  readonly startedAtMs: number;
}

/** What a call that was frozen for the pool may take when it goes on, until it is frozen again or the shortage is over. */
export type Grant =
  /** What those before it leave, by what they took of late. */
  | { readonly kind: 'relaxed' }
  /** All that is left while they take little. */
  | { readonly kind: 'rest' }
  /** So much for itself, to see whether it grows. */
  | { readonly kind: 'try'; readonly growBytes: number };

/** What a call's line depends on. */
export interface Claimant extends Precedence {
  /** What it may want soon: what it has taken of late (`takenOfLate`). Infinite where that is not known, or it is frozen. */
  readonly wantsBytes: number;
  /** By how much it has risen in the last seconds (`usualBytes`): slowly, and yet it does not hold still. */
  readonly risenBytes: number;
  readonly grant: Grant | undefined;
  /** Of its session; undefined if that is guaranteed nothing. */
  readonly guarantee: Guarantee | undefined;
}

export interface PoolLine {
  /** While the pool is used beyond it the call must not grow. Infinite for the first in order. */
  readonly bytes: number;
  /** What it is without a grant, with one of what those before it leave, and with one of the rest. */
  readonly gradedBytes: number;
  readonly relaxedBytes: number;
  readonly restBytes: number;
  /** What it is at the least while its session is within its guarantee; 0: it is not, or that cannot be kept. */
  readonly guaranteedBytes: number;
}

export interface LineUse {
  readonly usedBytes: number;
  readonly budgetBytes: number;
  /** What one that is stuck may have beyond the budget, throttled: half of what is left to a limit on all calls. */
  readonly overBytes: number;
  /** What the host could bear beyond what is used; 0 while it does not matter. */
  readonly hostRoomBytes: number;
}

export interface StepSettings {
  /** By how much the lines of the classes differ. */
  readonly stepPercent: number;
}

/** The least step: a dozen tasks may each have 256 KiB under way. */
const LEAST_STEP_BYTES = 4 * 1024 * 1024;

/** What it takes of late goes up and down by that much where nothing grows: four tasks, each with 256 KiB under way. */
const LEAST_WANT_BYTES = 1024 * 1024;

/** What others may take between two looks, with what is charged ahead and reclaimed for it. */
const STILL_MARGIN_BYTES = 4 * 1024 * 1024;

/** Steps below the budget at which each class stops growing, and what is left over. */
const STEPS: readonly number[] = [1, 2, 3, 3];
/**
 * How much sooner all but the first of a class stop. Two bursts at once are stopped with about as much each: apart
 * enough that the first can get to its end with what the others have left.
 */
const BEHIND_STEPS = 3;
const MOST_STEPS = 6;

const UNLIMITED: PoolLine = {
  bytes: Infinity,
  gradedBytes: Infinity,
  relaxedBytes: Infinity,
  restBytes: Infinity,
  guaranteedBytes: 0,
};

/** Interactive before subagent before background before what is left over; the older first. */
export function byPrecedence(a: Precedence, b: Precedence): number {
  return classOrder(a) - classOrder(b) || a.startedAtMs - b.startedAtMs;
}

/** Whether it has come to hold more than usual: it grows, however slowly. */
export function rises({ risenBytes }: Pick<Claimant, 'risenBytes'>): boolean {
  return risenBytes >= LEAST_WANT_BYTES;
}

/** Whether it has taken something of late, or may: then it must not get beyond its line. */
export function mayGrow(claimant: Claimant): boolean {
  return claimant.wantsBytes >= LEAST_WANT_BYTES || rises(claimant) || claimant.grant?.kind === 'try';
}

/**
 * Where the kernel is to stop it, in use of the pool. One that holds still takes a batch of pages now and then, and gives
 * others back: what the others have come to must not stop it, or it could never give back what they wait for.
 * @param beforeBytes what this was at the look before: kept while it will do, or the kernel would be told at each look.
 */
export function chargeLineBytes(
  claimant: Claimant,
  { bytes }: PoolLine,
  usedBytes: number,
  beforeBytes: number,
): number {
  if (mayGrow(claimant)) return bytes;
  const marginBytes = beforeBytes - usedBytes;
  const willDo = marginBytes >= STILL_MARGIN_BYTES / 2 && marginBytes <= STILL_MARGIN_BYTES;
  return Math.max(bytes, willDo ? beforeBytes : usedBytes + STILL_MARGIN_BYTES);
}

export function classOrder(member: Precedence): number {
  return member.leftover ? CALL_CLASSES.length : CALL_CLASSES.indexOf(member.class);
}

export function stepBytes(budgetBytes: number, { stepPercent }: StepSettings): number {
  return Math.max((budgetBytes * stepPercent) / 100, LEAST_STEP_BYTES);
}

/** The lowest line that a call can have: from here on the kernel has to look who charges. */
export function lowestLine(budgetBytes: number, settings: StepSettings): number {
  return budgetBytes - MOST_STEPS * stepBytes(budgetBytes, settings);
}

export function poolLines<M extends Claimant>(
  members: Iterable<M>,
  use: LineUse,
  settings: StepSettings,
): Map<M, PoolLine> {
  const { usedBytes, budgetBytes, overBytes } = use;
  const step = stepBytes(budgetBytes, settings);
  const lines = new Map<M, PoolLine>();
  const heads = new Set<number>();
  const guaranteed = guaranteeLines(use, step, lowestLine(budgetBytes, settings));
  let wantsBytes = 0;
  let most = 0;
  for (const member of [...members].sort(byPrecedence)) {
    const guaranteedBytes = guaranteed(member.guarantee);
    if (lines.size === 0) lines.set(member, UNLIMITED);
    else {
      const order = classOrder(member);
      const behind = heads.has(order);
      heads.add(order);
      // Nobody is stopped before those behind it.
      most = Math.max(most, (STEPS[order] ?? STEPS.length) + (behind ? BEHIND_STEPS : 0));
      // At least one for the first of all, and one more for the first of its class: it must not be stopped by the others.
      const relaxed = Math.min(Math.max(Math.ceil(wantsBytes / step), behind ? 2 : 1), most);
      const gradedBytes = budgetBytes - most * step;
      const relaxedBytes = budgetBytes - relaxed * step;
      const restBytes = wantsBytes <= step ? budgetBytes + overBytes : relaxedBytes;
      const grantedBytes = granted(member.grant, { gradedBytes, relaxedBytes, restBytes, usedBytes });
      const bytes = Math.max(grantedBytes, guaranteedBytes);
      lines.set(member, { bytes, gradedBytes, relaxedBytes, restBytes, guaranteedBytes });
    }
    wantsBytes += member.wantsBytes;
  }
  return lines;
}

function granted(
  grant: Grant | undefined,
  lines: { gradedBytes: number; relaxedBytes: number; restBytes: number; usedBytes: number },
): number {
  if (grant === undefined) return lines.gradedBytes;
  if (grant.kind === 'relaxed') return lines.relaxedBytes;
  if (grant.kind === 'rest') return lines.restBytes;
  return grant.growBytes > 0
    ? Math.max(lines.gradedBytes, lines.usedBytes + grant.growBytes)
    : lines.gradedBytes;
}
