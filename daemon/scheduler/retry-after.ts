// SPDX-License-Identifier: Apache-2.0
import type { HeaderReader } from './types.ts';

/** A day: what is longer is no advice for a turn. */
const LONGEST_MS = 86_400_000;

/** What the headers of an error say of sending it again. */
export interface RetryAdvice {
  /** Null: they do not say, or something that cannot be. */
  readonly afterMs: number | null;
  /** `x-should-retry`; null: they do not say. */
  readonly shouldRetry: boolean | null;
}

/**
 * Reads `retry-after-ms`, `retry-after` (seconds, with decimals, or an HTTP date) and `x-should-retry`.
 * @param wallNowMs the time of day, for dates.
 */
export function retryAdvice(headers: HeaderReader, wallNowMs: number): RetryAdvice {
  const shouldRetry = headers('x-should-retry');
  return {
    afterMs: afterMs(headers, wallNowMs),
    shouldRetry: shouldRetry === 'true' ? true : shouldRetry === 'false' ? false : null,
  };
}

function afterMs(headers: HeaderReader, wallNowMs: number): number | null {
  const inMs = decimal(headers('retry-after-ms'));
  if (inMs !== null) return Math.min(inMs, LONGEST_MS);
  const text = headers('retry-after');
  const seconds = decimal(text);
  if (seconds !== null) return Math.min(seconds * 1000, LONGEST_MS);
  // Dates begin with the name of the day: Date.parse takes far more, such as "-5".
  if (text === null || text === undefined || !/^\s*[A-Za-z]{3,9},/.test(text)) return null;
  const date = Date.parse(text);
  return Number.isNaN(date) ? null : Math.min(Math.max(0, date - wallNowMs), LONGEST_MS);
}

function decimal(text: string | null | undefined): number | null {
  if (text === null || text === undefined || !/^\s*\d+(\.\d+)?\s*$/.test(text)) return null;
  return Number(text);
}
