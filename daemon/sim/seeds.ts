// SPDX-License-Identifier: Apache-2.0

/** The first so many seeds: counted off, so that nobody can have picked them. */
export function firstSeeds(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

/** What results are of where nobody says how many. */
export const SEEDS: readonly number[] = firstSeeds(300);
