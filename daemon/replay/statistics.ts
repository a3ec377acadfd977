// SPDX-License-Identifier: Apache-2.0

/**
 * The value below which a share of the values lies, interpolated between the two nearest.
 * @param share 0 to 1
 * @returns null of no values
 */
export function quantile(values: readonly number[], share: number): number | null {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)];
  const high = sorted[Math.ceil(at)];
  return low === undefined || high === undefined ? null : low + (high - low) * (at - Math.floor(at));
}

/**
 * An interval that holds the true median with at least 95 % probability, from the order of the values alone: whatever
 * they are distributed like, the number of them below the true median is binomial.
 * @returns null of fewer than 6 values: even their least and greatest miss the median more often than that.
 */
export function medianInterval(values: readonly number[]): readonly [low: number, high: number] | null {
  const sorted = Float64Array.from(values).sort();
  const count = sorted.length;
  // The chance that fewer than `outside` + 1 values are below the median is that of each end to miss it.
  let outside = -1;
  let chance = 0.5 ** count;
  for (let sum = chance; sum <= 0.025 && outside < count; sum += chance) {
    outside += 1;
    chance *= (count - outside) / (outside + 1);
  }
  const low = sorted[outside];
  const high = sorted[count - 1 - outside];
  return low === undefined || high === undefined ? null : [low, high];
}
