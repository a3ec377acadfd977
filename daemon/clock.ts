// SPDX-License-Identifier: Apache-2.0

/** Asked for once: that costs as much as asking for the time, which a turn does twenty times. */
const startMs = performance.timeOrigin;

/**
 * Milliseconds since the epoch that never run backwards: the wall clock as it was at start-up plus
 * monotonic time. All of the daemon's deadlines and durations use it.
 */
export function nowMs(): number {
  return startMs + performance.now();
}

/**
 * What nowMs() was at 0 of CLOCK_MONOTONIC: another in each process between whose starts somebody set the clock, or the
 * host slept. With it a time of nowMs() can be handed on within a boot.
 */
export const monotonicZeroMs = nowMs() - Number(process.hrtime.bigint()) / 1e6;
