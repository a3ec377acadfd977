// SPDX-License-Identifier: Apache-2.0
import { type Choice, type Discipline, LEVELS, type Level, type QueueEntry } from './queue.ts';
import { type SessionHead, SessionHeap, usedLess } from './session-heap.ts';

/** Who has used least goes next, whatever the class; of equals who came or was served longest ago. */
export class FairShareQueue implements Discipline {
  /** By level, because some may not go at times. */
  readonly #levels: readonly SessionHeap[];

  /** @param rankOf a session's dominant share, in steps */
  constructor(rankOf: (session: string) => number) {
    this.#levels = LEVELS.map(() => new SessionHeap(rankOf));
  }

  get size(): number {
    return this.#levels.reduce((sum, { size }) => sum + size, 0);
  }

  push(entry: QueueEntry): void {
    this.#levels[entry.level]?.push(entry);
  }

  remove(entry: QueueEntry): void {
    this.#levels[entry.level]?.remove(entry);
  }

  next(_nowMs: number, mayGo: (level: Level) => boolean): Choice | undefined {
    let best: SessionHead | undefined;
    for (const level of LEVELS) {
      const head = mayGo(level) ? this.#levels[level]?.head() : undefined;
      if (head !== undefined && (best === undefined || usedLess(head, best))) best = head;
    }
    return best === undefined ? undefined : { entry: best.entry, aged: false };
  }

  take({ entry }: Choice, nowMs: number): void {
    this.remove(entry);
    for (const level of this.#levels) level.served(entry, nowMs);
  }

  agingAtMs(): number {
    return Number.POSITIVE_INFINITY;
  }

  used(session: string): void {
    for (const level of this.#levels) level.used(session);
  }

  rekey(): void {
    for (const level of this.#levels) level.rekey();
  }
}
