// SPDX-License-Identifier: Apache-2.0
import { REFUSAL_CODES, type RefusalCode } from './refusals.ts';

/** All count up from the start of the process. */
export interface Counters {
  readonly submitted: number;
  readonly dispatched: number;
  readonly completed: number;
  readonly failed: number;
  readonly aborted: number;
  readonly retried: number;
  /** Hung turns that were ended. */
  readonly reaped: number;
  /** Hung turns of a dry run. */
  readonly wouldReap: number;
  /** Of turns that hung or failed and were completed by a retry. */
  readonly recovered: number;
  readonly refused: Readonly<Record<RefusalCode, number>>;
  /** Turns that were served out of their turn because they waited too long. */
  readonly aged: number;
  readonly demoted: number;
  /** 429 and 529 answers. */
  readonly rateLimited: number;
  readonly overloaded: number;
  /** Values of rate headers that cannot be: -1, text. */
  readonly badHeaders: number;
  /** Sessions, runs or places forgotten because the tables were full. */
  readonly evicted: number;
  /** Turns that the queue found room for because the same request had waited before. */
  readonly placesKept: number;
  /** Sessions whose runs were ended because nobody went on with them. */
  readonly abandoned: number;
  /** The same of a dry run. */
  readonly wouldAbandon: number;
  /** Turns that would have had a lane but for the host's memory. */
  readonly held: number;
}

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
