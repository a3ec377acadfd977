// SPDX-License-Identifier: Apache-2.0
import { RecentMap } from './recent-map.ts';
import type { CallsOfSession } from './types.ts';

interface Known {
  readonly calls: CallsOfSession;
  /** Since when it has had none; null: it has some. */
  readonly noneSinceMs: number | null;
}

/** What the node agent told of the tool calls of sessions, of those without turns too: turns may follow. */
export class KnownCalls {
  readonly #known: RecentMap<string, Known>;

  constructor(capacity: number, evicted: () => void) {
    this.#known = new RecentMap(capacity, evicted, ({ calls }) => calls.live > 0);
  }

  /**
   * @param calls null: nothing is known any more.
   * @returns whether its first call has come or its last one ended.
   */
  set(session: string, calls: CallsOfSession | null, nowMs: number): boolean {
    const before = this.#known.peek(session);
    const hadSome = (before?.calls.live ?? 0) > 0;
    const hasSome = calls !== null && calls.live > 0;
    if (calls === null) this.#known.delete(session);
    else this.#known.set(session, { calls, noneSinceMs: hasSome ? null : (before?.noneSinceMs ?? nowMs) });
    return hadSome !== hasSome;
  }

  /** Null: nothing is known. */
  of(session: string): CallsOfSession | null {
    return this.#known.peek(session)?.calls ?? null;
  }

  hasLive(session: string): boolean {
    return (this.of(session)?.live ?? 0) > 0;
  }

  /** Since when it has had none; null: it has some, or nothing is known. */
  noneSinceMs(session: string): number | null {
    return this.#known.peek(session)?.noneSinceMs ?? null;
  }
}
