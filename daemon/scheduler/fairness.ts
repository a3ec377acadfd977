// SPDX-License-Identifier: Apache-2.0
import { RESOURCES, type Resource } from './resources.ts';

/** What fairness is counted in: lane time beside what upstreams limit. */
export const FAIR_RESOURCES = ['laneMs', ...RESOURCES] as const;
export type FairResource = 'laneMs' | Resource;
export type FairAmounts = Readonly<Partial<Record<FairResource, number>>>;

/**
 * What one session used of each resource, newest most: amounts count for half after each half-life.
 *
 * Kept as `log2(amount) + time / half-life`, which stays as it is while the amount decays: so the order of two
 * sessions changes only when one of them uses something, and can be the key of a heap.
 */
export class SessionUsage {
  readonly #logs = new Map<FairResource, number>();

  /** @param amount may be negative, to correct what was counted ahead. */
  add(resource: FairResource, amount: number, halfLives: number): void {
    const log = this.#logs.get(resource);
    const before = log === undefined ? 0 : 2 ** (log - halfLives);
    const after = before + amount;
    if (after > 1e-9) this.#logs.set(resource, Math.log2(after) + halfLives);
    else this.#logs.delete(resource);
  }

  /**
   * The dominant share (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011): of the resource of which it
   * used the largest part. On the undecaying scale: to be compared, not to be read.
   * @param capacity of a resource a minute; Infinity: not limited.
   * @returns -Infinity for one that used nothing.
   */
  dominantLog(capacity: (resource: FairResource) => number): number {
    let dominant = Number.NEGATIVE_INFINITY;
    for (const [resource, log] of this.#logs) {
      dominant = Math.max(dominant, log - Math.log2(capacity(resource)));
    }
    return dominant;
  }
}

/**
 * Jain's index of fairness: 1 if all are equal, 1/n if one has all.
 * @returns 1 of no values, or of zeros
 */
export function jainIndex(values: readonly number[]): number {
  let sum = 0;
  let squares = 0;
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  return squares === 0 ? 1 : (sum * sum) / (values.length * squares);
}
