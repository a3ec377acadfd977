// SPDX-License-Identifier: Apache-2.0
import { cameBefore, type QueueEntry } from './queue.ts';

/**
 * How many agents may run at a time: a session holds one place for its user's run and all its subagents, because
 * the one waits for the others and would wait for ever if they shared out the places. Turns of sessions without a
 * place wait here, before the queue of their upstream.
 */
export class AgentGate {
  readonly #limit: number;
  readonly #agingMs: number;
  readonly #holders = new Set<string>();
  readonly #waiting = new Map<string, Set<QueueEntry>>();

  /** @param limit Infinity: none. @param agingMs who has waited for so long goes next, whatever its level. */
  constructor(limit: number, agingMs: number) {
    this.#limit = limit;
    this.#agingMs = agingMs;
  }

  /** Null: none. */
  get limit(): number | null {
    return this.#limit === Number.POSITIVE_INFINITY ? null : this.#limit;
  }

  /** Places that are taken. */
  get running(): number {
    return this.#holders.size;
  }

  /** Sessions that wait for one. */
  get waiting(): number {
    return this.#waiting.size;
  }

  holds(session: string): boolean {
    return this.#holders.has(session);
  }

  /** A turn of it comes. @returns whether it may go on to the queue; it has a place then. */
  enter(session: string): boolean {
    if (this.limit === null || this.#holders.has(session)) return true;
    if (this.#holders.size >= this.#limit) return false;
    this.#holders.add(session);
    return true;
  }

  /** Puts back who held one before a restart, however many they are. */
  restore(session: string): void {
    if (this.limit !== null) this.#holders.add(session);
  }

  wait(entry: QueueEntry): void {
    const { session } = entry.turn;
    const entries = this.#waiting.get(session);
    if (entries === undefined) this.#waiting.set(session, new Set([entry]));
    else entries.add(entry);
  }

  /** Without effect if it does not wait here. */
  remove(entry: QueueEntry): void {
    const { session } = entry.turn;
    const entries = this.#waiting.get(session);
    if (entries?.delete(entry) && entries.size === 0) this.#waiting.delete(session);
  }

  leave(session: string): void {
    this.#holders.delete(session);
  }

  /** Gives a free place to who goes next. @returns its turns; empty if no place is free or nobody waits. */
  next(nowMs: number): readonly QueueEntry[] {
    if (this.#holders.size >= this.#limit) return [];
    let best: QueueEntry | undefined;
    for (const entries of this.#waiting.values()) {
      for (const entry of entries) if (best === undefined || this.#before(entry, best, nowMs)) best = entry;
    }
    if (best === undefined) return [];
    const { session } = best.turn;
    const entries = this.#waiting.get(session) ?? [];
    this.#waiting.delete(session);
    this.#holders.add(session);
    return [...entries];
  }

  #before(a: QueueEntry, b: QueueEntry, nowMs: number): boolean {
    const old = (entry: QueueEntry): boolean => nowMs - entry.sinceMs >= this.#agingMs;
    if (old(a) !== old(b)) return old(a);
    if (!old(a) && a.level !== b.level) return a.level < b.level;
    return cameBefore(a, b);
  }
}
