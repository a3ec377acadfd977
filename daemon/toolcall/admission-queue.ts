// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';

/**
 * Calls that may wait for admission at a time. Each waits 5 s at most, so more would mean that over
 * 200 calls a second arrive on a host that has no memory left.
 */
const MAX_WAITING = 1024;
/** How often the pool is looked at for calls that wait. */
const TICK_MS = 50;

/** Whether a call is admitted now, or needs to wait no longer for another reason. */
type Attempt = (now: number) => boolean;

interface Turn {
  /** Those of a lower one come first. */
  readonly rank: number;
  /** When it is tried whoever is before it. */
  readonly dueMs: number;
}

interface Waiting extends Turn {
  readonly attempt: Attempt;
}

/** Calls that wait to be admitted, by rank and then in order of arrival. */
export class AdmissionQueue {
  readonly #waiting: Waiting[] = [];
  #timer: NodeJS.Timeout | undefined;

  get length(): number {
    return this.#waiting.length;
  }

  get full(): boolean {
    return this.#waiting.length >= MAX_WAITING;
  }

  /**
   * Tries at once if nobody is before it, else again and again in its turn.
   * @returns undefined if it need not wait, else what withdraws it.
   */
  enter(attempt: Attempt, turn: Turn, now: number): (() => void) | undefined {
    const place = this.#waiting.findLastIndex(({ rank }) => rank <= turn.rank) + 1;
    // Behind others it waits its turn, even if it would fit: small calls must not starve a large one.
    if (place === 0 && attempt(now)) return;
    const waiting: Waiting = { ...turn, attempt };
    this.#waiting.splice(place, 0, waiting);
    this.#timer ??= setInterval(() => this.#admit(), TICK_MS);
    return () => this.#remove(waiting);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#waiting.length = 0;
  }

  #admit(): void {
    const now = nowMs();
    // The first that does not fit keeps those behind it waiting too.
    while (this.#waiting[0]?.attempt(now)) this.#waiting.shift();
    // But for so long and no longer: while others of a lower rank come, its turn may not.
    for (const waiting of this.#waiting.filter(({ dueMs }) => now >= dueMs)) {
      if (waiting.attempt(now)) this.#remove(waiting);
    }
    if (this.#waiting.length > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #remove(waiting: Waiting): void {
    const index = this.#waiting.indexOf(waiting);
    if (index >= 0) this.#waiting.splice(index, 1);
  }
}
