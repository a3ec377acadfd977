// SPDX-License-Identifier: Apache-2.0

/**
 * Keeps turns back from an account whose quota is used up: each would be refused, after all of its waiting. When
 * the time is over one turn tries, and its end decides.
 */
export class Breaker {
  #openUntilMs: number | null = null;
  #probing = false;

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

  opened(untilMs: number): void {
    this.#openUntilMs = Math.max(untilMs, this.#openUntilMs ?? untilMs);
    this.#probing = false;
  }

  /**
   * A turn ended. Only the one that tried decides: others were sent while it was still open to them.
   * @param answered whether the account was served.
   */
  ended(probe: boolean, answered: boolean): void {
    if (!probe) return;
    this.#probing = false;
    if (answered) this.#openUntilMs = null;
  }
}
