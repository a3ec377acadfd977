// SPDX-License-Identifier: Apache-2.0
import { Breaker } from './breaker.ts';
import type {
  SubscriptionReading,
  SubscriptionStatus,
  SubscriptionWindowName,
} from './subscription-headers.ts';

/** What the newest answer said of the account's subscription. Times are from now, 0 once they have passed. */
export interface SubscriptionSnapshot {
  readonly status: SubscriptionStatus;
  readonly claim: string | null;
  readonly fallback: boolean;
  readonly resetMs: number | null;
  readonly windows: readonly {
    readonly window: SubscriptionWindowName;
    readonly status: SubscriptionStatus | null;
    readonly used: number | null;
    readonly resetMs: number | null;
  }[];
}

/** How often a turn that leaves the rest of a window to better ones looks again whether there still are any. */
const LOOK_MS = 10_000;

/** What is known of an account's subscription: all of its upstreams share it. */
export class Subscription {
  /** Open while the whole account is turned away. */
  readonly breaker = new Breaker();
  #newest: SubscriptionReading | null = null;

  learn(reading: SubscriptionReading): void {
    this.#newest = reading;
  }

  /**
   * How long until a turn may use of a window that the API itself says will soon be used up, 0 if it may now.
   * @param keepShare of each window that must be left over.
   */
  waitMs(keepShare: number, wallNowMs: number): number {
    if (keepShare === 0 || this.#newest === null || this.#newest.status === 'allowed') return 0;
    const short = this.#newest.windows.some(
      ({ used, resetWallMs }) => (used ?? 0) > 1 - keepShare && (resetWallMs ?? 0) > wallNowMs,
    );
    return short ? LOOK_MS : 0;
  }

  /** Null: the account has none, as far as its answers have told. */
  snapshot(wallNowMs: number): SubscriptionSnapshot | null {
    if (this.#newest === null) return null;
    const { status, claim, fallback, resetWallMs, windows } = this.#newest;
    const leftMs = (atMs: number | null) => (atMs === null ? null : Math.max(0, atMs - wallNowMs));
    return {
      status,
      claim,
      fallback,
      resetMs: leftMs(resetWallMs),
      windows: windows.map((window) => ({
        window: window.window,
        status: window.status,
        used: window.used,
        resetMs: leftMs(window.resetWallMs),
      })),
    };
  }
}
