// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { Clock } from './clock.ts';

/** setTimeout fires at once for more (2^31 - 1 ms, 24 days). */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Time as it passes. Timers do not keep the process alive: what a turn waits on does. */
export const realClock: Clock = {
  now: nowMs,
  wallNow: Date.now,
  setTimer: (delayMs, callback) => {
    // Node cuts fractions off, and a timer must not fire early.
    const timer = setTimeout(callback, Math.min(Math.ceil(delayMs), LONGEST_TIMER_MS));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};
