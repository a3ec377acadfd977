// SPDX-License-Identifier: Apache-2.0
import { Heap } from './heap.ts';
import type { Choice, Discipline, Level, QueueEntry } from './queue.ts';
import { RecentMap } from './recent-map.ts';
import { SessionHeap } from './session-heap.ts';
import type { LevelSettings } from './settings.ts';

/** Sessions whose last dispatch of that kind is remembered; the oldest of more have long been due again. */
const AGED_SESSIONS = 1_000;

interface LevelQueue {
  readonly index: Level;
  readonly ages: Heap<'ageIndex', QueueEntry>;
  readonly sessions: SessionHeap;
  /** Virtual time at which its next turn would be done, if each level were served alone at its share. */
  finish: number;
}

/**
 * Three levels that share the lanes by strides (Waldspurger and Weihl, "Stride Scheduling", MIT 1995; with the
 * finish tags of start-time fair queueing, so that a background turn that comes is not served at once), so that
 * none starves and none needs a boost; in a level the session with the smallest dominant share, of equals who came
 * or was served longest ago; a turn that lost its lane through no fault of its own before the others of its level; and
 * who has waited too long next of all.
 */
export class LeveledQueue implements Discipline {
  readonly #settings: LevelSettings;
  readonly #levels: readonly [LevelQueue, LevelQueue, LevelQueue];
  #virtualTime = 0;
  #dispatches = 0;
  #sinceAged = Number.POSITIVE_INFINITY;
  /** At which dispatch each session last went for having waited too long. */
  readonly #agedAt = new RecentMap<string, number>(AGED_SESSIONS, () => {});

  /** @param rankOf a session's dominant share, in steps within which shares count as equal */
  constructor(settings: LevelSettings, rankOf: (session: string) => number) {
    this.#settings = settings;
    this.#levels = [newLevel(0, rankOf), newLevel(1, rankOf), newLevel(2, rankOf)];
  }

  get size(): number {
    return this.#levels.reduce((sum, { ages }) => sum + ages.size, 0);
  }

  push(entry: QueueEntry): void {
    const level = this.#levels[entry.level];
    // Time that it had nothing to be served is not owed to it.
    if (level.sessions.size === 0) {
      level.finish = Math.max(level.finish, this.#virtualTime) + this.#stride(entry.level);
    }
    level.sessions.push(entry);
    level.ages.push(entry);
  }

  remove(entry: QueueEntry): void {
    const level = this.#levels[entry.level];
    if (!level.ages.remove(entry)) return;
    level.sessions.remove(entry);
  }

  next(nowMs: number, mayGo: (level: Level) => boolean): Choice | undefined {
    const { agingMs, agingOneIn } = this.#settings;
    if (this.#sinceAged >= agingOneIn - 1) {
      const entry = this.#aged(nowMs - agingMs);
      if (entry !== undefined) return { entry, aged: true };
    }
    let best: LevelQueue | undefined;
    for (const level of this.#levels) {
      if (level.sessions.size === 0 || !mayGo(level.index)) continue;
      if (best === undefined || level.finish < best.finish) best = level;
    }
    const entry = best?.sessions.head()?.entry;
    return entry === undefined ? undefined : { entry, aged: false };
  }

  take({ entry, aged }: Choice, nowMs: number): void {
    this.#dispatches += 1;
    this.#sinceAged = aged ? 0 : this.#sinceAged + 1;
    if (aged) this.#agedAt.set(entry.turn.session, this.#dispatches);
    const level = this.#levels[entry.level];
    if (!aged) this.#virtualTime = Math.max(this.#virtualTime, level.finish - this.#stride(entry.level));
    this.remove(entry);
    level.sessions.served(entry, nowMs);
    if (level.sessions.size > 0) level.finish += this.#stride(entry.level);
    for (const other of this.#levels) {
      // Nor is time in which it might not go: else it would have all lanes when it may again.
      if (other.sessions.size > 0 && other.finish < this.#virtualTime)
        other.finish = this.#virtualTime + this.#stride(other.index);
    }
  }

  agingAtMs(): number {
    const oldest = this.#oldest();
    return oldest === undefined ? Number.POSITIVE_INFINITY : oldest.sinceMs + this.#settings.agingMs;
  }

  used(session: string): void {
    for (const { sessions } of this.#levels) sessions.used(session);
  }

  /**
   * Who has waited longest, if since then. A session has one such dispatch in as many as there are sessions in its
   * level: its own storm makes its turns no more urgent.
   */
  #aged(sinceMs: number): QueueEntry | undefined {
    const oldest = this.#oldest();
    if (oldest === undefined || oldest.sinceMs > sinceMs) return undefined;
    let found: QueueEntry | undefined;
    for (const { sessions } of this.#levels) {
      for (const entry of sessions.heads()) {
        if (entry.sinceMs > sinceMs || (found !== undefined && !waitsLonger(entry, found))) continue;
        const agedAt = this.#agedAt.peek(entry.turn.session) ?? Number.NEGATIVE_INFINITY;
        if (this.#dispatches - agedAt >= sessions.sessions) found = entry;
      }
    }
    return found;
  }

  #oldest(): QueueEntry | undefined {
    let oldest: QueueEntry | undefined;
    for (const { ages } of this.#levels) {
      const entry = ages.peek();
      if (entry !== undefined && (oldest === undefined || waitsLonger(entry, oldest))) oldest = entry;
    }
    return oldest;
  }

  #stride(level: Level): number {
    return 1 / this.#settings.shares[level];
  }

  rekey(): void {
    for (const { sessions } of this.#levels) sessions.rekey();
  }
}

function newLevel(index: Level, rankOf: (session: string) => number): LevelQueue {
  return { index, ages: new Heap('ageIndex', waitsLonger), sessions: new SessionHeap(rankOf), finish: 0 };
}

function waitsLonger(a: QueueEntry, b: QueueEntry): boolean {
  return a.sinceMs < b.sinceMs || (a.sinceMs === b.sinceMs && a.sequence < b.sequence);
}
