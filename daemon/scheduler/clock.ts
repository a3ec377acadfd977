// SPDX-License-Identifier: Apache-2.0

/** Time as the scheduler sees it; the simulator has its own. */
export interface Clock {
  /** Milliseconds, never running backwards. */
  readonly now: () => number;
  /** Milliseconds since the epoch, for times of day in headers. */
  readonly wallNow: () => number;
  /** Calls back once, after at least `delayMs`. */
  readonly setTimer: (delayMs: number, callback: () => void) => Timer;
}

export interface Timer {
  /** Without effect once it has fired. */
  readonly cancel: () => void;
}
