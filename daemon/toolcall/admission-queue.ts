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

interface Waiting {
  readonly attempt: Attempt;
  readonly rank: number;
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
   * @param rank those of a lower one come first.
   * @returns undefined if it need not wait, else what withdraws it.
   */
  enter(attempt: Attempt, rank: number, now: number): (() => void) | undefined {
    const place = this.#waiting.findLastIndex((other) => other.rank <= rank) + 1;
    // Behind others it waits its turn, even if it would fit: small calls must not starve a large one.
    if (place === 0 && attempt(now)) return;
    const waiting: Waiting = { attempt, rank };
    this.#waiting.splice(place, 0, waiting);
    this.#timer ??= setInterval(() => this.#admit(), TICK_MS);
    return () => {
      const index = this.#waiting.indexOf(waiting);
      if (index >= 0) this.#waiting.splice(index, 1);
    };
  }

  close(): void {
    clearInterval(this.#timer);
    this.#waiting.length = 0;
  }

  #admit(): void {
    const now = nowMs();
    // The first that does not fit keeps those behind it waiting too.
    while (this.#waiting[0]?.attempt(now)) this.#waiting.shift();
    if (this.#waiting.length > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
