// SPDX-License-Identifier: Apache-2.0
import { type Counters, REFUSAL_CODES, type RefusalCode } from './types.ts';

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** {@link Counters} as they are counted. */
export type MutableCounters = Writable<Counters> & { refused: Record<RefusalCode, number> };

export function noCounters(): MutableCounters {
  const refused = Object.fromEntries(REFUSAL_CODES.map((code) => [code, 0])) as Record<RefusalCode, number>;
  return {
    submitted: 0,
    dispatched: 0,
    completed: 0,
    failed: 0,
    aborted: 0,
    retried: 0,
    reaped: 0,
    wouldReap: 0,
    recovered: 0,
    refused,
    aged: 0,
    demoted: 0,
    rateLimited: 0,
    overloaded: 0,
    badHeaders: 0,
    evicted: 0,
    placesKept: 0,
    abandoned: 0,
    wouldAbandon: 0,
    held: 0,
  };
}
