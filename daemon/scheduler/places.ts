// SPDX-License-Identifier: Apache-2.0
import { RecentMap } from './recent-map.ts';
import type { Turn } from './types.ts';

/** What is known of a request from when it came before. */
export interface Place {
  /** Since when it waits. */
  readonly sinceMs: number;
  /** Retries that it had already. */
  readonly retries: number;
}

interface Kept extends Place {
  readonly untilMs: number;
}

/**
 * Remembers requests by the hash of their body, within one credential: those that waited too long, so that
 * they do not lose their place, and those whose retries are used up, so that a client that retries as well does
 * not multiply them.
 */
export class Places {
  readonly #places: RecentMap<string, Kept>;

  constructor(capacity: number, onEvict: () => void) {
    this.#places = new RecentMap(capacity, onEvict);
  }

  keep(turn: Turn, place: Place, untilMs: number): void {
    this.keepKey(keyOf(turn), place, untilMs);
  }

  /** As it was saved. */
  keepKey(key: string, { sinceMs, retries }: Place, untilMs: number): void {
    this.#places.set(key, { sinceMs, retries, untilMs });
  }

  /** The request has come again: what was kept of it. A second one like it is a new one. */
  take(turn: Turn, nowMs: number): Place | null {
    // Nearly always: its hash is not asked for.
    if (this.#places.size === 0) return null;
    const key = keyOf(turn);
    const kept = this.#places.peek(key);
    if (kept === undefined) return null;
    this.#places.delete(key);
    return nowMs <= kept.untilMs ? kept : null;
  }

  *live(nowMs: number): Generator<readonly [key: string, place: Place]> {
    for (const [key, kept] of this.#places.entries()) if (nowMs <= kept.untilMs) yield [key, kept];
  }
}

export function placeKey(credential: string, bodyHash: string): string {
  return `${credential}\n${bodyHash}`;
}

function keyOf({ credential, bodyHash }: Turn): string {
  return placeKey(credential, bodyHash());
}
