// SPDX-License-Identifier: Apache-2.0
import { Heap } from './heap.ts';
import { type Choice, type Discipline, LEVELS, type Level, type QueueEntry } from './queue.ts';

/**
 * By when a turn that does not say should have its lane, by its class: before a person looks elsewhere; before other
 * subagents are done; before its client gives up at 300 s.
 */
const TARGETS_MS = [15_000, 60_000, 240_000] as const;

/**
 * Earliest deadline first (Liu and Layland, JACM 1973): whose time is up soonest goes next, whatever its class. Nobody
 * starves, because a deadline only comes nearer while those of newcomers lie ahead.
 */
export class DeadlineQueue implements Discipline {
  /** By level, because some may not go at times. */
  readonly #heaps = LEVELS.map(() => new Heap<'turnIndex', QueueEntry>('turnIndex', isDueBefore));

  get size(): number {
    return this.#heaps.reduce((sum, { size }) => sum + size, 0);
  }

  push(entry: QueueEntry): void {
    this.#heaps[entry.level]?.push(entry);
  }

  remove(entry: QueueEntry): void {
    this.#heaps[entry.level]?.remove(entry);
  }

  next(_nowMs: number, mayGo: (level: Level) => boolean): Choice | undefined {
    let first: QueueEntry | undefined;
    for (const level of LEVELS) {
      const entry = mayGo(level) ? this.#heaps[level]?.peek() : undefined;
      if (entry !== undefined && (first === undefined || isDueBefore(entry, first))) first = entry;
    }
    return first === undefined ? undefined : { entry: first, aged: false };
  }

  take({ entry }: Choice): void {
    this.remove(entry);
  }

  agingAtMs(): number {
    return Number.POSITIVE_INFINITY;
  }

  used(): void {}

  rekey(): void {}
}

/** When its lane is due, on the clock of `sinceMs`. */
function dueMs({ turn, sinceMs }: QueueEntry): number {
  // The level of a long run is no longer that of its class; what it was promised is.
  return sinceMs + (turn.deadlineMs ?? TARGETS_MS[CLASS_LEVELS[turn.class]]);
}

const CLASS_LEVELS = { interactive: 0, subagent: 1, background: 2 } as const;

function isDueBefore(a: QueueEntry, b: QueueEntry): boolean {
  const order = dueMs(a) - dueMs(b);
  return order === 0 ? a.sequence < b.sequence : order < 0;
}
