// SPDX-License-Identifier: Apache-2.0
import type { Refusal } from './refusals.ts';
import { refusals } from './refusals.ts';

/**
 * Keeps turns back from an account whose quota is used up: each would be refused, after all of its waiting. When
 * the time is over one turn tries, and its answer decides.
 */
export class Breaker {
  #openUntilMs: number | null = null;
  #probing = false;
  #refusal: (leftMs: number) => Refusal = refusals.quota;

  state(nowMs: number): 'closed' | 'open' | 'half-open' {
    if (this.#openUntilMs === null) return 'closed';
    return nowMs < this.#openUntilMs || this.#probing ? 'open' : 'half-open';
  }

  /** How long to wait; while a turn tries, it is not known and so a second. */
  leftMs(nowMs: number): number {
    return this.#openUntilMs === null ? 0 : Math.max(1_000, this.#openUntilMs - nowMs);
  }

  /** A turn is sent. @returns whether it is the one that tries. */
  sent(nowMs: number): boolean {
    if (this.state(nowMs) !== 'half-open') return false;
    this.#probing = true;
    return true;
  }

  /** @param refusal what those are told that are kept back, by how long it still lasts. */
  opened(untilMs: number, refusal: (leftMs: number) => Refusal): void {
    this.#openUntilMs = Math.max(untilMs, this.#openUntilMs ?? untilMs);
    this.#probing = false;
    this.#refusal = refusal;
  }

  refusal(nowMs: number): Refusal {
    return this.#refusal(this.leftMs(nowMs));
  }

  /**
   * The turn that tried is answered or has ended; others were sent while it was still open to them.
   * @param answered whether the account was served.
   */
  ended(answered: boolean): void {
    this.#probing = false;
    if (answered) this.#openUntilMs = null;
  }
}
