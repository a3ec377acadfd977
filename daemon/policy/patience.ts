// SPDX-License-Identifier: Apache-2.0

/*
 * Nobody knows whether a frozen call would grow: it may have had all it wants, and give it back once it goes on. So each
 * goes on now and then, and is stopped again if it grows; the more often that was in vain, the later it is tried again.
 */

/** Growth is measured against a look at least this old, or a slow leak would never be seen to grow. */
export const BASELINE_MS = 100;

/** What was taken is forgotten at this pace: within a burst nobody pauses for longer. */
const LATELY_MS = 250;

/** What a call usually holds is what it held in about that time: longer than what its garbage collector takes to turn round. */
const USUAL_MS = 2000;
/** A burst is forgotten after three seconds, however large it was: after that its call holds still, or grows again. */
const MOST_RISEN_BYTES = 4 * 1024 * 1024;

/** At the most between two tries: bursts of builds and tests last for seconds. */
const LONGEST_MS = 2000;

/** How a call gets on with being frozen. */
export interface Patience {
  /** The freeze that this is about. */
  readonly frozenSinceMs: number;
  /** For how long it is to stay frozen before it is tried. */
  readonly ms: number;
  /** How often it was tried since it got nowhere. */
  readonly tries: number;
  /** Since when it has got nowhere: the first freeze of a series in which all tries were in vain. */
  readonly stuckSinceMs: number;
  /** When it went on from there, if it has. */
  readonly wentOnAtMs: number | undefined;
}

/** @param leastMs of a freeze. */
export function firstPatience(frozenSinceMs: number, leastMs: number): Patience {
  return { frozenSinceMs, ms: leastMs, tries: 0, stuckSinceMs: frozenSinceMs, wentOnAtMs: undefined };
}

/** A call has been frozen again: twice as long if it had only just gone on. */
export function nextPatience(before: Patience | undefined, frozenSinceMs: number, leastMs: number): Patience {
  const ranMs = frozenSinceMs - (before?.wentOnAtMs ?? -Infinity);
  if (before === undefined || ranMs >= LATELY_MS) return firstPatience(frozenSinceMs, leastMs);
  const ms = Math.max(leastMs, Math.min(2 * before.ms, LONGEST_MS));
  return { ...before, frozenSinceMs, ms, tries: before.tries + 1, wentOnAtMs: undefined };
}

/**
 * What a call usually holds, in bytes: a mean that fades, and follows at once when it falls. A leak of a megabyte a second
 * rises to 2 MB above it, which is nothing between two looks.
 * @param beforeBytes what this was `elapsedMs` ago.
 */
export function usualBytes(beforeBytes: number, heldBytes: number, elapsedMs: number): number {
  const fadedBytes = heldBytes + (beforeBytes - heldBytes) * Math.exp(-elapsedMs / USUAL_MS);
  return Math.min(heldBytes, Math.max(fadedBytes, heldBytes - MOST_RISEN_BYTES));
}

/**
 * What a call has taken of late, in bytes; what it took before fades.
 * @param beforeBytes what this was `elapsedMs` ago.
 * @param grownBytes since then; negative if it gave something back.
 */
export function takenOfLate(beforeBytes: number, grownBytes: number, elapsedMs: number): number {
  return beforeBytes * Math.exp(-elapsedMs / LATELY_MS) + Math.max(0, grownBytes);
}
