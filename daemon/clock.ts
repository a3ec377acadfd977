// SPDX-License-Identifier: Apache-2.0

/**
 * Milliseconds since the epoch that never run backwards: the wall clock as it was at start-up plus
 * monotonic time. All of the daemon's deadlines and durations use it.
 */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}
