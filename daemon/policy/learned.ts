// SPDX-License-Identifier: Apache-2.0
import type { Advice, PeakQuantile } from '../control/types.ts';
import { sizeWord } from '../units.ts';
import { ADVISED_FACTOR, ADVISED_OVER_PEAK, advisedBytes } from './advised.ts';

/** What one run of a command had in use at most. */
export interface Observation {
  readonly peakBytes: number;
  /**
   * It was ended before it was done: killed for memory, by a signal or for its time. It would have used
   * as much or more, nobody knows how much.
   */
  readonly cutShort: boolean;
}

export type Peaks = Pick<Advice, 'p50' | 'p95' | 'max'>;

/** What is kept of a command in a repository: its newest runs. */
export interface Learned {
  readonly uid: number;
  /** Empty: in no repository. */
  readonly repository: string;
  readonly shape: string;
  readonly lastRunAt: string;
  readonly observations: readonly Observation[];
}

/** The least that is ever advised: the smallest loan, so that less would only freeze a call for nothing. */
const LEAST_HIGH_BYTES = 64 * 1024 * 1024;

/**
 * What runs of a command need, by the product-limit estimator of Kaplan and Meier: a run that was cut short
 * counts as one of those that need more than it had, up to there, and no further. To leave such runs out, or
 * to take what they had for what they need, would make exactly the commands small that were killed for
 * being large.
 * @returns null without a run that was not cut short: nothing is known then.
 */
export function peaksOf(observations: readonly Observation[]): Peaks | null {
  // Who was cut short at a size had reached it, and is among those who need as much.
  const sorted = observations.toSorted(
    (a, b) => a.peakBytes - b.peakBytes || Number(a.cutShort) - Number(b.cutShort),
  );
  const last = sorted.at(-1);
  if (last === undefined || sorted.every(({ cutShort }) => cutShort)) return null;
  const steps: { bytes: number; share: number }[] = [];
  let above = 1;
  for (const [index, { peakBytes, cutShort }] of sorted.entries()) {
    if (cutShort) continue;
    above *= 1 - 1 / (sorted.length - index);
    steps.push({ bytes: peakBytes, share: 1 - above });
  }
  const quantile = (share: number): PeakQuantile => {
    // Products of fractions: 0.95 may come out as 0.9499999.
    const step = steps.find((entry) => entry.share >= share - 1e-9);
    return step === undefined
      ? { bytes: last.peakBytes, atLeast: true }
      : { bytes: step.bytes, atLeast: false };
  };
  return { p50: quantile(0.5), p95: quantile(0.95), max: { bytes: last.peakBytes, atLeast: last.cutShort } };
}

/**
 * The memory.high that fits nineteen of twenty runs, with a margin. Never a memory.max: what was learned may
 * hold a command back sooner or later, and may not kill it.
 * @param mostBytes of the user.
 */
export function advisedHighBytes({ p95 }: Peaks, mostBytes: number): number {
  const wanted = p95.bytes * (p95.atLeast ? ADVISED_FACTOR : ADVISED_OVER_PEAK);
  return advisedBytes(Math.max(wanted, LEAST_HIGH_BYTES), mostBytes);
}

/**
 * What to ask for, or null while too little is known.
 * @param leastRuns that must be behind it.
 * @param mostBytes of the user.
 */
export function adviceOf(learned: Learned, leastRuns: number, mostBytes: number): Advice | null {
  const { uid, repository, shape, lastRunAt, observations } = learned;
  const peaks = observations.length < leastRuns ? null : peaksOf(observations);
  if (peaks === null) return null;
  const intent = `memory.high=${sizeWord(advisedHighBytes(peaks, mostBytes))}`;
  return {
    uid,
    repository: repository === '' ? null : repository,
    command: shape,
    runs: observations.length,
    cutShort: observations.filter(({ cutShort }) => cutShort).length,
    lastRunAt,
    ...peaks,
    intent,
    rule: { command: shape, intent },
  };
}
