// SPDX-License-Identifier: Apache-2.0

/** Of how many resamples an interval is made: its ends are then stable to a hundredth of its width. */
const RESAMPLES = 2000;

export type Interval = readonly [low: number, high: number];

export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly p50: number;
  /** 95 % interval of the median. */
  readonly p50Interval: Interval;
  readonly p99: number;
  /** 95 % interval of the 99th percentile; with few values it ends at the maximum. */
  readonly p99Interval: Interval;
  readonly max: number;
}

/**
 * The value below which a share of the values lies, interpolated between the two nearest.
 * @param share 0 to 1
 * @returns NaN of no values
 */
export function quantile(values: readonly number[], share: number): number {
  return sortedQuantile(Float64Array.from(values).sort(), share);
}

/** @returns NaN of no values */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/**
 * 95 % percentile-bootstrap interval of a statistic. The resamples are the same in every run, so the same values
 * yield the same interval.
 * @param statistic of some of the samples, drawn with replacement
 */
export function interval<T>(samples: readonly T[], statistic: (samples: T[]) => number): Interval {
  const random = generator();
  const statistics = new Float64Array(RESAMPLES);
  for (let i = 0; i < RESAMPLES; i += 1) {
    statistics[i] = statistic(samples.map(() => samples[Math.floor(random() * samples.length)] as T));
  }
  statistics.sort();
  return [sortedQuantile(statistics, 0.025), sortedQuantile(statistics, 0.975)];
}

/** What is told of a series of measurements, in the unit of the values. */
export function summary(values: readonly number[]): Summary {
  return {
    count: values.length,
    min: quantile(values, 0),
    p50: median(values),
    p50Interval: interval(values, median),
    p99: quantile(values, 0.99),
    p99Interval: interval(values, (some) => quantile(some, 0.99)),
    max: quantile(values, 1),
  };
}

function sortedQuantile(sorted: Float64Array, share: number): number {
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

/** Numbers from 0 to 1 by a linear congruential generator (constants of Numerical Recipes), always the same. */
function generator(): () => number {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
