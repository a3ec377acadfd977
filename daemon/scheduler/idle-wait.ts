// SPDX-License-Identifier: Apache-2.0
import type { Clock, Timer } from './clock.ts';
import { type Linked, LinkedList } from './linked-list.ts';

/** What an item of an {@link IdleWait} carries for it. */
export interface Idle<T> extends Linked<T> {
  /** Until when it is waited for; null: it is not. */
  idleUntilMs: number | null;
}

/**
 * Waits for what has fallen idle. One timer for all: they all wait equally long, so that the order in which they fell
 * idle is that of their ends.
 */
export class IdleWait<T extends Idle<T>> {
  readonly #clock: Clock;
  readonly #over: (item: T, nowMs: number) => void;
  /** Soonest first. */
  readonly #idle = new LinkedList<T>();
  #timer: Timer | null = null;
  #closed = false;

  /** @param over it was waited for as long as was to be; it is not waited for any more. */
  constructor(clock: Clock, over: (item: T, nowMs: number) => void) {
    this.#clock = clock;
    this.#over = over;
  }

  /** From now on, also if it is waited for already. */
  start(item: T, forMs: number): void {
    this.stop(item);
    item.idleUntilMs = this.#clock.now() + forMs;
    this.#idle.add(item);
    this.#arm();
  }

  /** Without effect if it is not waited for. */
  stop(item: T): void {
    if (item.idleUntilMs === null) return;
    item.idleUntilMs = null;
    this.#idle.remove(item);
  }

  /** They are to wait for another time: each is stopped, and started again, after this. */
  restart(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #arm(): void {
    if (this.#timer !== null || this.#closed) return;
    const untilMs = this.#idle.first?.idleUntilMs ?? null;
    if (untilMs === null) return;
    this.#timer = this.#clock.setTimer(Math.max(0, untilMs - this.#clock.now()), () => {
      this.#timer = null;
      this.#end();
      this.#arm();
    });
  }

  #end(): void {
    const nowMs = this.#clock.now();
    for (;;) {
      const item = this.#idle.first;
      if (item === null || (item.idleUntilMs ?? nowMs) > nowMs) return;
      this.stop(item);
      this.#over(item, nowMs);
    }
  }
}
