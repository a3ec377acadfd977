// SPDX-License-Identifier: Apache-2.0

/** From `atMs` on, so many bytes; to the end of the last step, where all is given back. */
export interface Step {
  readonly atMs: number;
  readonly bytes: number;
}

/** The most that sessions hold at the same time if none is held back. */
export function summedPeakBytes(sessions: readonly (readonly Step[])[]): number {
  const changes = sessions.flatMap((steps) => {
    let held = 0;
    const own = steps.map(({ atMs, bytes }) => {
      const change = bytes - held;
      held = bytes;
      return { atMs, change };
    });
    const end = steps.at(-1);
    return end === undefined ? [] : [...own, { atMs: end.atMs, change: -held }];
  });
  // Stable: a session's own changes at one moment stay in their order.
  changes.sort((a, b) => a.atMs - b.atMs);
  let sum = 0;
  let peak = 0;
  for (const { change } of changes) {
    sum += change;
    peak = Math.max(peak, sum);
  }
  return peak;
}
