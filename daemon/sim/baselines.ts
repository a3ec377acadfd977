// SPDX-License-Identifier: Apache-2.0
import { type Choice, cameBefore, type Discipline, type Level, type QueueEntry } from '../scheduler/queue.ts';

/** How often the paper's queue lifts all that waits to the highest level. */
const BOOST_MS = 60_000;

/**
 * The orders that the paper compares itself with, and its own as its text describes it. They sort on demand: loads
 * of the simulator are small, and short code is easier to trust.
 */
abstract class SortedQueue implements Discipline {
  readonly waiting = new Set<QueueEntry>();

  abstract before(a: QueueEntry, b: QueueEntry, nowMs: number): boolean;

  get size(): number {
    return this.waiting.size;
  }

  push(entry: QueueEntry): void {
    this.waiting.add(entry);
  }

  remove(entry: QueueEntry): void {
    this.waiting.delete(entry);
  }

  next(nowMs: number, mayGo: (level: Level) => boolean): Choice | undefined {
    let first: QueueEntry | undefined;
    for (const entry of this.waiting) {
      if (!mayGo(entry.level)) continue;
      if (first === undefined || this.before(entry, first, nowMs)) first = entry;
    }
    return first === undefined ? undefined : { entry: first, aged: false };
  }

  take({ entry }: Choice, _nowMs: number): void {
    this.remove(entry);
  }

  agingAtMs(): number {
    return Number.POSITIVE_INFINITY;
  }

  used(): void {}

  rekey(): void {}
}

/** Who came first goes first. */
export class FifoQueue extends SortedQueue {
  override before(a: QueueEntry, b: QueueEntry): boolean {
    return cameBefore(a, b);
  }
}

/** Agents take turns. */
export class RoundRobinQueue extends SortedQueue {
  readonly #servedAt = new Map<string, number>();
  #dispatches = 0;

  override before(a: QueueEntry, b: QueueEntry): boolean {
    const order = this.#lastServed(a) - this.#lastServed(b);
    return order === 0 ? cameBefore(a, b) : order < 0;
  }

  override take(choice: Choice, nowMs: number): void {
    super.take(choice, nowMs);
    this.#dispatches += 1;
    this.#servedAt.set(choice.entry.turn.session, this.#dispatches);
  }

  #lastServed({ turn }: QueueEntry): number {
    return this.#servedAt.get(turn.session) ?? 0;
  }
}

/** The better class first, without end. */
export class PriorityQueue extends SortedQueue {
  override before(a: QueueEntry, b: QueueEntry): boolean {
    return a.level === b.level ? cameBefore(a, b) : a.level < b.level;
  }
}

/** The paper's multi-level feedback queue: by class, and every minute all that waits is lifted to the top. */
export class PaperQueue extends SortedQueue {
  override before(a: QueueEntry, b: QueueEntry, nowMs: number): boolean {
    const first = levelAt(a, nowMs);
    const second = levelAt(b, nowMs);
    return first === second ? cameBefore(a, b) : first < second;
  }
}

function levelAt({ level, sinceMs }: QueueEntry, nowMs: number): number {
  const boosted = Math.floor(nowMs / BOOST_MS) > Math.floor(sinceMs / BOOST_MS);
  return boosted ? 0 : level;
}
