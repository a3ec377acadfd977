// SPDX-License-Identifier: Apache-2.0
import { Heap } from './heap.ts';
import { cameBefore, type QueueEntry } from './queue.ts';
import { RecentMap } from './recent-map.ts';

/** Sessions that are remembered without a place: they come back with their next run. */
const IDLE_SESSIONS = 256;

function noHolds(): RecentMap<string, boolean> {
  return new RecentMap<string, boolean>(
    IDLE_SESSIONS,
    () => {},
    (holds) => holds,
  );
}

/**
 * How many agents may run at a time: a session holds one place for its user's run and all its subagents, because
 * the one waits for the others and would wait for ever if they shared out the places. Turns of sessions without a
 * place wait here, before the queue of their upstream.
 */
export class AgentGate<Entry extends QueueEntry> {
  #limit: number;
  readonly #agingMs: number;
  /** Whether a session has a place; of those that have none it may forget. */
  #holds = noHolds();
  #running = 0;
  readonly #waiting = new Heap<'gateIndex', Entry>('gateIndex', cameBefore);

  /** @param limit Infinity: none. @param agingMs who has waited for so long goes next, whatever its level. */
  constructor(limit: number, agingMs: number) {
    this.#limit = limit;
    this.#agingMs = agingMs;
  }

  /** Null: none. */
  get limit(): number | null {
    return this.#limit === Number.POSITIVE_INFINITY ? null : this.#limit;
  }

  /**
   * Another limit, from now on; who has a place keeps it. {@link next} tells whether it makes room.
   * @param limit Infinity: none.
   */
  limitTo(limit: number): void {
    this.#limit = limit;
    if (this.limit !== null) return;
    this.#holds = noHolds();
    this.#running = 0;
  }

  /** Places that are taken. */
  get running(): number {
    return this.#running;
  }

  /** Sessions that wait for one. */
  get waiting(): number {
    return new Set(Array.from(this.#waiting, ({ turn }) => turn.session)).size;
  }

  holds(session: string): boolean {
    return this.#holds.peek(session) === true;
  }

  /** A turn of it comes. @returns whether it may go on to the queue; it has a place then. */
  enter(session: string): boolean {
    if (this.limit === null || this.holds(session)) return true;
    if (this.#running >= this.#limit) return false;
    this.#take(session);
    return true;
  }

  /** Puts back who held one before a restart, however many they are. */
  restore(session: string): void {
    if (this.limit !== null && !this.holds(session)) this.#take(session);
  }

  wait(entry: Entry): void {
    this.#waiting.push(entry);
  }

  /** Without effect if it does not wait here. */
  remove(entry: Entry): void {
    this.#waiting.remove(entry);
  }

  leave(session: string): void {
    if (!this.holds(session)) return;
    this.#holds.set(session, false);
    this.#running -= 1;
  }

  /** Gives a free place to who goes next. @returns its turns; empty if no place is free or nobody waits. */
  next(nowMs: number): readonly Entry[] {
    if (this.#running >= this.#limit) return [];
    // Who is old changes with time, so that no heap has this order.
    let best: Entry | undefined;
    for (const entry of this.#waiting) {
      if (best === undefined || this.#before(entry, best, nowMs)) best = entry;
    }
    if (best === undefined) return [];
    const { session } = best.turn;
    const entries = [...this.#waiting].filter(({ turn }) => turn.session === session);
    for (const entry of entries) this.#waiting.remove(entry);
    this.#take(session);
    return entries;
  }

  #take(session: string): void {
    if (this.limit === null) return;
    this.#holds.set(session, true);
    this.#running += 1;
  }

  #before(a: QueueEntry, b: QueueEntry, nowMs: number): boolean {
    const old = (entry: QueueEntry): boolean => nowMs - entry.sinceMs >= this.#agingMs;
    if (old(a) !== old(b)) return old(a);
    if (!old(a) && a.level !== b.level) return a.level < b.level;
    return cameBefore(a, b);
  }
}
