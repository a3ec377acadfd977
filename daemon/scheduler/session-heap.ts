// SPDX-License-Identifier: Apache-2.0
import { Heap } from './heap.ts';
import { cameBefore, type QueueEntry } from './queue.ts';
import { RecentMap } from './recent-map.ts';

/** Sessions that are remembered while nothing of them waits: they come back with their next turn. */
const IDLE_SESSIONS = 256;

/** The turns of one session at one level. */
interface SessionQueue {
  readonly session: string;
  readonly turns: Heap<'turnIndex', QueueEntry>;
  /** The session's dominant share, in steps within which shares count as equal; as it was while turns wait. */
  rank: number;
  /** When one of its turns was last given a lane: of equals, who came or was served longest ago goes first. */
  servedAtMs: number;
  /** In the order of its level, while turns wait. */
  index?: number;
}

/** The next turn of a session. */
export interface SessionHead {
  readonly entry: QueueEntry;
  readonly rank: number;
  /** Since when it is the session's turn: it came, or another of its turns was served. */
  readonly sinceMs: number;
}

/**
 * The turns of one level by session: a turn that lost its lane through no fault of its own first, then the session
 * with the smallest dominant share, of equals who came or was served longest ago: who has many turns waiting is not
 * served in a row for it.
 */
export class SessionHeap {
  readonly #rankOf: (session: string) => number;
  readonly #sessions = new RecentMap<string, SessionQueue>(
    IDLE_SESSIONS,
    () => {},
    ({ turns }) => turns.size > 0,
  );
  /** Sessions of which turns wait. */
  readonly #order = new Heap<'index', SessionQueue>('index', goesBefore);
  #size = 0;

  /** @param rankOf a session's dominant share, see {@link SessionQueue.rank} */
  constructor(rankOf: (session: string) => number) {
    this.#rankOf = rankOf;
  }

  /** Turns. */
  get size(): number {
    return this.#size;
  }

  /** Sessions that have any. */
  get sessions(): number {
    return this.#order.size;
  }

  push(entry: QueueEntry): void {
    const { session } = entry.turn;
    let queue = this.#sessions.get(session);
    if (queue === undefined) {
      queue = { session, turns: new Heap('turnIndex', cameBefore), rank: 0, servedAtMs: 0 };
      this.#sessions.set(session, queue);
    }
    this.#size += 1;
    queue.turns.push(entry);
    if (queue.turns.size === 1) {
      queue.rank = this.#rankOf(session);
      this.#order.push(queue);
    } else {
      this.#order.move(queue);
    }
  }

  /** A turn of it has a lane. */
  served({ turn: { session } }: QueueEntry, nowMs: number): void {
    const queue = this.#sessions.peek(session);
    if (queue === undefined) return;
    queue.servedAtMs = nowMs;
    if (queue.turns.size > 0) this.#order.move(queue);
  }

  /** Without effect if it is not in it. */
  remove(entry: QueueEntry): void {
    const queue = this.#sessions.peek(entry.turn.session);
    if (queue === undefined || !queue.turns.remove(entry)) return;
    this.#size -= 1;
    if (queue.turns.size > 0) this.#order.move(queue);
    else this.#order.remove(queue);
  }

  /** Whose turn it is. */
  head(): SessionHead | undefined {
    const queue = this.#order.peek();
    return queue === undefined ? undefined : headOf(queue);
  }

  /** The first turn of each session, in no order. */
  *heads(): Generator<QueueEntry> {
    for (const { turns } of this.#order) yield turns.peek() as QueueEntry;
  }

  /** A session's use has changed. */
  used(session: string): void {
    const queue = this.#sessions.peek(session);
    if (queue === undefined || queue.turns.size === 0) return;
    const rank = this.#rankOf(session);
    if (queue.rank === rank) return;
    queue.rank = rank;
    this.#order.move(queue);
  }

  /** All capacities may have changed. */
  rekey(): void {
    for (const queue of this.#order) queue.rank = this.#rankOf(queue.session);
    this.#order.rebuild();
  }
}

function headOf({ turns, rank, servedAtMs }: SessionQueue): SessionHead {
  const entry = turns.peek() as QueueEntry;
  return { entry, rank, sinceMs: Math.max(entry.sinceMs, servedAtMs) };
}

function goesBefore(a: SessionQueue, b: SessionQueue): boolean {
  const first = headOf(a);
  const second = headOf(b);
  if (first.entry.retry !== second.entry.retry) return first.entry.retry;
  return usedLess(first, second);
}

/** By share; of equals who came or was served longest ago. */
export function usedLess(a: SessionHead, b: SessionHead): boolean {
  if (a.rank !== b.rank) return a.rank < b.rank;
  return a.sinceMs === b.sinceMs ? cameBefore(a.entry, b.entry) : a.sinceMs < b.sinceMs;
}
