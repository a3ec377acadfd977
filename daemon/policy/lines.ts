// SPDX-License-Identifier: Apache-2.0

/**
 * Where the kernel is told to act on one call: throttle over memory.high, stop over the freeze line,
 * kill at memory.max. Raise them in the order memory.max, freeze line, memory.high, then thaw; lower them
 * the other way round, so that no task ever meets a line that is already obsolete.
 */
export interface Lines {
  readonly memoryHighBytes: number;
  readonly freezeLineBytes: number;
  readonly memoryMaxBytes: number;
}

/** Memory is counted in pages; where they are larger than this the kernel rounds down once more. */
export const PAGE_BYTES = 4096;

/**
 * A task charges 64 pages ahead (MEMCG_CHARGE_BATCH): that much each task may still add after it was
 * told to stop. Huge pages, 2 MiB a charge, are off in calls unless configured.
 */
export const CHARGE_BYTES = 64 * PAGE_BYTES;

/** Tasks of a call of which nothing is known yet: a shell, a pipeline and what they run. */
const USUAL_TASKS = 16;

/** Giving back stops this far above the usage: lowering memory.high to it must not start a reclaim. */
const HEADROOM = 1.05;

/**
 * Less is not worth giving back: each step costs a write that may reclaim, and the call a freeze if it
 * needs the memory again after all.
 */
const LEAST_STEP_BYTES = 4 * 1024 * 1024;

export function floorToPage(bytes: number): number {
  return Math.floor(bytes / PAGE_BYTES) * PAGE_BYTES;
}

export function ceilToPage(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

export interface LinesInput {
  readonly highBytes: number;
  /** What the call was promised at most; `Infinity`: no limit. memory.max never goes over it. */
  readonly declaredMaxBytes: number;
  /** How far above memory.high the freeze line is. Under 1.25 the kernel does not even throttle there. */
  readonly freezeLinePercent: number;
  readonly tasks?: number;
  /** What the pool could still give to this call beyond `highBytes`. Absent: no shortage in sight. */
  readonly roomBytes?: number;
}

/**
 * The lines for a call that may use `highBytes` now.
 *
 * The freeze line stands a little above memory.high, and at least one charge. memory.max is the fence for
 * what neither throttle nor freeze can stop, one bulk system call: it is as far away as the pool has room,
 * so that a large read() into fresh memory is not killed while there is memory for it, but never nearer to
 * the freeze line than what the call's tasks may still charge while they stop. At the declared maximum
 * that margin is not needed: who reaches it has what was promised, and is killed by the kernel, rightly.
 * A freeze line that would be over it is put on it, where nothing can cross it.
 */
export function linesFor(input: LinesInput): Lines {
  const { highBytes, declaredMaxBytes, freezeLinePercent, tasks = USUAL_TASKS, roomBytes = Infinity } = input;
  const memoryHighBytes = Math.min(highBytes, declaredMaxBytes);
  const distance = Math.max((memoryHighBytes * freezeLinePercent) / 100, CHARGE_BYTES);
  const freezeLineBytes = Math.min(ceilToPage(memoryHighBytes + distance), declaredMaxBytes);
  const fence = ceilToPage(freezeLineBytes + Math.max(marginBytes(tasks), roomBytes));
  return { memoryHighBytes, freezeLineBytes, memoryMaxBytes: Math.min(fence, declaredMaxBytes) };
}

/** The highest memory.high whose freeze line is not over `lineBytes`. */
export function highUnder(lineBytes: number, freezeLinePercent: number): number {
  const byShare = lineBytes / (1 + freezeLinePercent / 100);
  return Math.max(0, floorToPage(Math.min(byShare, lineBytes - CHARGE_BYTES)));
}

/** What `tasks` tasks may still charge between being told to stop and stopping. */
export function marginBytes(tasks: number): number {
  return Math.max(1, tasks) * CHARGE_BYTES;
}

export interface GiveBackInput extends LinesInput {
  /** memory.high now is `highBytes`; it falls towards this one. */
  readonly declaredHighBytes: number;
  readonly usageBytes: number;
  /** Give back all at once that is not used. */
  readonly all?: boolean;
}

/**
 * The next step of giving lent memory back, or null if there is nothing worth giving back: half of what
 * is lent and not used, so that a call whose burst returns meets a line again only after several steps.
 * memory.high stays 5 % above the usage, memory.max the margin above that: below its usage it would kill.
 */
export function givenBack(input: GiveBackInput): Lines | null {
  const { highBytes, declaredHighBytes, usageBytes, all = false } = input;
  const goal = Math.max(declaredHighBytes, ceilToPage(usageBytes * HEADROOM));
  const spareBytes = highBytes - goal;
  if (!(spareBytes >= LEAST_STEP_BYTES)) return null;
  const stepBytes = all || spareBytes < 2 * LEAST_STEP_BYTES ? spareBytes : spareBytes / 2;
  return linesFor({ ...input, highBytes: ceilToPage(highBytes - stepBytes) });
}
