// SPDX-License-Identifier: Apache-2.0
import { formatBytes, formatMs } from '../units.ts';
import { ceilToPage, givenBack, highUnder, type Lines, linesFor, marginBytes } from './lines.ts';
import type { Pool } from './pool.ts';

/** Every reason for which a call is killed. */
export const KILL_CODES = [
  'memory-max', // all of its memory.max is in use and it gets nowhere
  'host-memory', // frozen to the deadline, and the host had nothing left to lend
  'timeout', // its own, declared
  'session-end', // its session is over
  'wrapper-lost', // killed from outside, as an agent does at its own timeout
  'leftover', // its shell has ended and processes are not to be left behind
  'operator', // asked for on the control socket
] as const;
export type KillCode = (typeof KILL_CODES)[number];

export type Decision =
  | { readonly action: 'keep' }
  | { readonly action: 'lend'; readonly lines: Lines; readonly reason: string }
  | { readonly action: 'wait'; readonly untilMs: number; readonly reason: string }
  | { readonly action: 'kill'; readonly code: KillCode; readonly reason: string };

export interface LendSettings {
  /** A loan is at least this share of memory.high … */
  readonly stepPercent: number;
  /** … and at least this, … */
  readonly stepMinBytes: number;
  /** … or one part in this many of the pool's room, if that is more. */
  readonly roomShare: number;
  /** The smallest loan that is of use, for a call that has waited to its deadline. */
  readonly leastBytes: number;
  /** Nothing is given back before the call has been below its lines for so long. */
  readonly quietMs: number;
}

export interface EnforcementSettings {
  readonly freezeLinePercent: number;
  /** The longest single freeze. */
  readonly freezeDeadlineMs: number;
  /** The longest that a call is throttled before it is lent to, if that is what slows it. */
  readonly throttleDeadlineMs: number;
  /** The share of time in which all tasks of a call wait for memory (PSI) that counts as slow. */
  readonly throttlePressurePercent: number;
  /** The longest that a call is throttled and gets nowhere at all. */
  readonly stuckDeadlineMs: number;
}

export interface DecideSettings {
  readonly enforcement: EnforcementSettings;
  readonly lend: LendSettings;
}

/** A call that its lines hold back. */
export interface HeldCall {
  readonly usageBytes: number;
  readonly tasks: number;
  /** memory.high as it is now. */
  readonly highBytes: number;
  readonly declaredMaxBytes: number;
  /** A task outside waits for a lock that this call holds: it is lent to before its deadline. */
  readonly blocksOthers?: boolean;
}

export interface FrozenCall extends HeldCall {
  readonly frozenSinceMs: number;
  /** Another call was killed and has not given its memory back yet: this one need not die as well. */
  readonly killPending?: boolean;
}

export interface GrowingCall {
  readonly usageBytes: number;
  /** memory.high as it is now. */
  readonly highBytes: number;
  /** By how much its usage has grown since the last look; negative if it gave something back. */
  readonly grownBytes: number;
}

export interface ThrottledCall extends HeldCall {
  /** Since when it has been at its memory.high without a break. */
  readonly throttledSinceMs: number;
  /** `full avg10` of the call's own memory.pressure. */
  readonly pressureFullPercent: number;
  /** User time of all tasks in per cent of the time that has passed, as recent as can be had. */
  readonly userCpuPercent: number;
}

/** A loan ahead is for so many looks more at the present pace: one of them may come late. */
const AHEAD_LOOKS = 3;

/** A killed call gives a GiB back in about this time; asking sooner is of no use. */
const KILL_GRACE_MS = 100;

/**
 * Getting nowhere: all tasks wait for memory nearly always and next to nothing is computed. A program that
 * streams through page cache at memory.high waits far less, and must never be killed for it.
 */
const STUCK_PRESSURE_PERCENT = 90;
const STUCK_CPU_PERCENT = 5;

/**
 * What to do with a frozen call: lend while the pool has room; else wait to the deadline of this freeze;
 * then lend the least that is of use even over the budget, if the host can bear it; else kill.
 *
 * A call that already has all of its memory.max is not killed here for wanting more: it may need just
 * what it has. It is thawed without a throttle, and the kernel, which alone knows, kills it if it does
 * reach its maximum.
 */
export function decideFrozen(
  call: FrozenCall,
  pool: Pool,
  nowMs: number,
  settings: DecideSettings,
): Decision {
  const loan = lendFrom(call, pool, settings);
  if (loan !== null) return loan;
  const deadlineMs = call.frozenSinceMs + settings.enforcement.freezeDeadlineMs;
  if (nowMs >= deadlineMs || call.blocksOthers === true) {
    const why = call.blocksOthers === true ? 'another call waits for its lock' : 'waited to the deadline';
    const least = lendLeast(call, pool, settings, why);
    if (least !== null) return least;
  }
  if (nowMs < deadlineMs) return { action: 'wait', untilMs: deadlineMs, reason: 'no room in the pool' };
  if (call.killPending === true) {
    return { action: 'wait', untilMs: nowMs + KILL_GRACE_MS, reason: 'another call gives its memory back' };
  }
  const waited = formatMs(nowMs - call.frozenSinceMs);
  return { action: 'kill', code: 'host-memory', reason: `host memory short, frozen for ${waited}` };
}

/**
 * What to do with a call that has been at its memory.high for long without reaching the freeze line:
 * the kernel finds just enough to reclaim. That is right for page cache, which costs little to read
 * again; it is a hang for a program whose own memory is about as large as its memory.high. It is lent
 * to if that is what slows it, and killed only if it is stuck and nothing can be lent.
 */
export function decideThrottled(
  call: ThrottledCall,
  pool: Pool,
  nowMs: number,
  settings: DecideSettings,
): Decision {
  const { throttleDeadlineMs, throttlePressurePercent, freezeDeadlineMs, stuckDeadlineMs } =
    settings.enforcement;
  const throttledMs = nowMs - call.throttledSinceMs;
  if (throttledMs < throttleDeadlineMs || call.pressureFullPercent < throttlePressurePercent) {
    return { action: 'keep' };
  }
  const atMax = call.highBytes >= call.declaredMaxBytes;
  if (!atMax) {
    const loan = lendFrom(call, pool, settings);
    if (loan !== null) return loan;
    const waited = throttledMs >= throttleDeadlineMs + freezeDeadlineMs;
    const least = waited ? lendLeast(call, pool, settings, 'throttled to the deadline') : null;
    if (least !== null) return least;
  }
  const stuck = call.pressureFullPercent >= STUCK_PRESSURE_PERCENT && call.userCpuPercent < STUCK_CPU_PERCENT;
  if (!stuck || throttledMs < stuckDeadlineMs) return { action: 'keep' };
  const reason = `no progress for ${formatMs(throttledMs)}`;
  return atMax
    ? { action: 'kill', code: 'memory-max', reason: `needs more than its memory.max, ${reason}` }
    : { action: 'kill', code: 'host-memory', reason: `host memory short, ${reason}` };
}

/** Whether a call that grows on at its present pace meets its memory.high within a few looks. */
export function isNearHigh(call: GrowingCall): boolean {
  return soonBytes(call) >= call.highBytes;
}

/**
 * Lends before the throttle, to a call whose memory.high is only a guess of ours: where the pool has room it has no
 * business to slow anybody.
 */
export function decideAhead(call: HeldCall & GrowingCall, pool: Pool, settings: DecideSettings): Decision {
  // Not the last of the room: who gets that is decided when somebody is held back for want of it.
  const ample = pool.roomBytes >= 2 * loanBytes(call, pool, settings.lend);
  const loan = ample && isNearHigh(call) ? lendFrom(call, pool, settings) : null;
  return loan?.action === 'lend' && loan.lines.memoryHighBytes > call.highBytes ? loan : { action: 'keep' };
}

export interface LentCall extends HeldCall, GrowingCall {
  readonly declaredHighBytes: number;
  /** When it was last frozen, or at its memory.high. */
  readonly lastPressedMs: number;
  /** A frozen call waits for room: what this one was lent and does not use is worth more there. */
  readonly wanted?: boolean;
}

/** The next step of giving back what was lent, or null if it is too early or there is nothing to give. */
export function decideGiveBack(
  call: LentCall,
  pool: Pool,
  nowMs: number,
  settings: DecideSettings,
): Lines | null {
  const wanted = call.wanted === true;
  if (!wanted && nowMs - call.lastPressedMs < settings.lend.quietMs) return null;
  return givenBack({
    highBytes: call.highBytes,
    declaredHighBytes: call.declaredHighBytes,
    declaredMaxBytes: call.declaredMaxBytes,
    // What it is about to use it would only be lent again.
    usageBytes: soonBytes(call),
    tasks: call.tasks,
    roomBytes: pool.roomBytes,
    freezeLinePercent: settings.enforcement.freezeLinePercent,
    all: wanted,
  });
}

/**
 * Whether a call has used up its timeout. Time frozen does not count, nor does the wait for admission.
 * @param startedAtMs when it was admitted.
 * @returns with `leftMs` it need not be asked about sooner; 0 once it is due.
 */
export function decideTimeout(
  call: { readonly startedAtMs: number; readonly timeoutMs: number; readonly frozenMs: number },
  nowMs: number,
): { readonly due: boolean; readonly leftMs: number } {
  const ranMs = nowMs - call.startedAtMs - call.frozenMs;
  const leftMs = Math.max(0, call.timeoutMs - ranMs);
  return { due: leftMs === 0, leftMs };
}

/** How the call ended, from what was done to it and what the kernel counted, never from its exit status. */
export function outcomeOf(end: {
  readonly killCode: KillCode | null;
  readonly oomKills: number;
}): 'ok' | 'killed' | 'oom' | 'timeout' | 'lost' {
  if (end.killCode === 'timeout') return 'timeout';
  if (end.killCode === 'wrapper-lost') return 'lost';
  // What is killed after the command's own end does not change how the command ended.
  if (end.killCode !== null && end.killCode !== 'leftover') return 'killed';
  return end.oomKills > 0 ? 'oom' : 'ok';
}

/** A loan out of the pool's room, or null if the room is too small for one of use. */
function lendFrom(call: HeldCall, pool: Pool, settings: DecideSettings): Decision | null {
  const affordableBytes = call.usageBytes + pool.roomBytes;
  const leastBytes = leastHighBytes(call, settings.lend);
  if (place(call, leastBytes, settings).freezeLineBytes > affordableBytes) return null;
  const stepBytes = loanBytes(call, pool, settings.lend);
  const mostBytes = highUnder(affordableBytes, settings.enforcement.freezeLinePercent);
  const highBytes = Math.max(leastBytes, Math.min(call.usageBytes + stepBytes, mostBytes), call.highBytes);
  return lend(call, highBytes, affordableBytes, pool.roomBytes, settings, 'room in the pool');
}

/** A loan of the usual size. */
function loanBytes({ highBytes }: HeldCall, { roomBytes }: Pool, settings: LendSettings): number {
  const { stepPercent, stepMinBytes, roomShare } = settings;
  return Math.max((highBytes * stepPercent) / 100, stepMinBytes, roomBytes / roomShare);
}

function soonBytes({ usageBytes, grownBytes }: GrowingCall): number {
  return usageBytes + AHEAD_LOOKS * Math.max(0, grownBytes);
}

/** The smallest loan, out of what the host can bear over the budget, or null if it cannot bear it. */
function lendLeast(call: HeldCall, pool: Pool, settings: DecideSettings, why: string): Decision | null {
  const affordableBytes = call.usageBytes + pool.hostRoomBytes;
  const leastBytes = leastHighBytes(call, settings.lend);
  if (place(call, leastBytes, settings).freezeLineBytes > affordableBytes) return null;
  return lend(call, leastBytes, affordableBytes, 0, settings, `${why}, over the budget`);
}

/** The lowest memory.high with which the call gets anywhere: its tasks must be able to charge. */
function leastHighBytes(call: HeldCall, settings: LendSettings): number {
  const least = call.usageBytes + Math.max(settings.leastBytes, marginBytes(call.tasks));
  return Math.min(ceilToPage(least), call.declaredMaxBytes);
}

/**
 * @param affordableBytes usage up to which the loan may lead.
 * @param roomBytes what of the pool's room the fence of a bulk call may take beyond that.
 */
function lend(
  call: HeldCall,
  highBytes: number,
  affordableBytes: number,
  roomBytes: number,
  settings: DecideSettings,
  why: string,
): Decision {
  let lines = place(call, ceilToPage(highBytes), settings, roomBytes);
  // No freeze line fits below the maximum any more: throttling there would only be slow.
  if (lines.freezeLineBytes >= call.declaredMaxBytes && call.declaredMaxBytes <= affordableBytes) {
    lines = place(call, call.declaredMaxBytes, settings);
  }
  const to = formatBytes(lines.memoryHighBytes);
  return { action: 'lend', lines, reason: `memory.high ${formatBytes(call.highBytes)} to ${to}: ${why}` };
}

function place(call: HeldCall, highBytes: number, settings: DecideSettings, roomBytes = 0): Lines {
  const { declaredMaxBytes, tasks, usageBytes } = call;
  const { freezeLinePercent } = settings.enforcement;
  // What the loan itself takes of the room is not there for the fence.
  const leftBytes = Math.max(0, roomBytes - Math.max(0, highBytes - usageBytes));
  return linesFor({ highBytes, declaredMaxBytes, tasks, roomBytes: leftBytes, freezeLinePercent });
}
