// SPDX-License-Identifier: Apache-2.0

const MIB = 1024 * 1024;

/** Who ran into a limit gets twice as much advised: the command says only that it needs more than that. */
export const ADVISED_FACTOR = 2;
/** Above a peak that is known: the next run may need a little more. */
export const ADVISED_OVER_PEAK = 1.25;

/**
 * Rounded up to an eighth of the power of two below, so that what is advised is easy to read (387.5 MiB is
 * 416M), and to no more than may be asked for.
 */
export function advisedBytes(bytes: number, mostBytes: number): number {
  const step = Math.max(16 * MIB, 2 ** Math.floor(Math.log2(bytes)) / 8);
  return Math.min(Math.ceil(bytes / step) * step, Math.floor(mostBytes / MIB) * MIB);
}
