// SPDX-License-Identifier: Apache-2.0
import type { Turn } from './types.ts';

/** 0 is best: interactive, subagent, background. */
export type Level = 0 | 1 | 2;
export const LEVELS = [0, 1, 2] as const satisfies readonly Level[];

/** A turn that waits for a lane. */
export interface QueueEntry {
  readonly turn: Turn;
  readonly level: Level;
  /** Since when it waits: from its first submission on, retries and kept places included. */
  readonly sinceMs: number;
  /** In the order of submission, for those that came in the same millisecond. */
  readonly sequence: number;
  /** It had a lane already and lost it through no fault of its own. */
  readonly retry: boolean;
  /** Where it stands in the heaps of the queue. */
  ageIndex?: number;
  turnIndex?: number;
  /** … and among those whose agent waits for another to end. */
  gateIndex?: number;
}

export interface Choice {
  readonly entry: QueueEntry;
  /** It has waited too long: it goes next whatever else waits. */
  readonly aged: boolean;
}

/** The order in which turns get lanes. */
export interface Discipline {
  readonly size: number;
  readonly push: (entry: QueueEntry) => void;
  /** Without effect if it is not in it. */
  readonly remove: (entry: QueueEntry) => void;
  /** Who goes next, of the levels that may. Changes nothing. */
  readonly next: (nowMs: number, mayGo: (level: Level) => boolean) => Choice | undefined;
  /** It got its lane. */
  readonly take: (choice: Choice, nowMs: number) => void;
  /** When somebody will have waited too long; Infinity: never. */
  readonly agingAtMs: () => number;
  /** A session's use has changed. */
  readonly used: (session: string) => void;
  /** All capacities may have changed. */
  readonly rekey: () => void;
}

/** Makes the order of one upstream's queue. @param rankOf a session's dominant share, in steps; lowest goes first */
export type DisciplineMaker = (rankOf: (session: string) => number) => Discipline;

/** Retries first, then who has waited longest. */
export function cameBefore(a: QueueEntry, b: QueueEntry): boolean {
  if (a.retry !== b.retry) return a.retry;
  return a.sinceMs < b.sinceMs || (a.sinceMs === b.sinceMs && a.sequence < b.sequence);
}
