// SPDX-License-Identifier: Apache-2.0
import type { Clock, Timer } from '../scheduler/clock.ts';
import { Heap } from '../scheduler/heap.ts';

interface Event {
  readonly atMs: number;
  readonly sequence: number;
  readonly callback: () => void;
  index?: number;
}

/** A clock that jumps from timer to timer; timers of the same moment fire in the order in which they were set. */
export class SimulatedClock implements Clock {
  readonly #events = new Heap<'index', Event>(
    'index',
    (a, b) => a.atMs < b.atMs || (a.atMs === b.atMs && a.sequence < b.sequence),
  );
  readonly #epochMs: number;
  #nowMs = 0;
  #sequence = 0;

  /** @param epochMs the time of day at the start. */
  constructor(epochMs = 0) {
    this.#epochMs = epochMs;
  }

  readonly now = (): number => this.#nowMs;

  readonly wallNow = (): number => this.#epochMs + this.#nowMs;

  readonly setTimer = (delayMs: number, callback: () => void): Timer => {
    const event: Event = { atMs: this.#nowMs + Math.max(0, delayMs), sequence: this.#sequence, callback };
    this.#sequence += 1;
    this.#events.push(event);
    return { cancel: () => this.#events.remove(event) };
  };

  /** How many timers are set. */
  get timers(): number {
    return this.#events.size;
  }

  /** Lets time pass up to a moment, or until no timer is set. */
  run(untilMs = Number.POSITIVE_INFINITY): void {
    for (let event = this.#events.peek(); event !== undefined; event = this.#events.peek()) {
      if (event.atMs > untilMs) break;
      this.#events.remove(event);
      this.#nowMs = event.atMs;
      event.callback();
    }
    if (untilMs !== Number.POSITIVE_INFINITY) this.#nowMs = Math.max(this.#nowMs, untilMs);
  }
}
