// SPDX-License-Identifier: Apache-2.0
import type { Clock } from './clock.ts';
import { RecentMap } from './recent-map.ts';
import { RESOURCES, type Resource } from './resources.ts';
import type { FairnessSettings } from './settings.ts';

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
  readonly #logs: Record<FairResource, number> = {
    laneMs: Number.NEGATIVE_INFINITY,
    requests: Number.NEGATIVE_INFINITY,
    inputTokens: Number.NEGATIVE_INFINITY,
    outputTokens: Number.NEGATIVE_INFINITY,
  };

  /** @param amount may be negative, to correct what was counted ahead. */
  add(resource: FairResource, amount: number, halfLives: number): void {
    const after = 2 ** (this.#logs[resource] - halfLives) + amount;
    this.#logs[resource] = after > 1e-9 ? Math.log2(after) + halfLives : Number.NEGATIVE_INFINITY;
  }

  /**
   * The dominant share (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011): of the resource of which it
   * used the largest part. On the undecaying scale: to be compared, not to be read.
   * @param capacity of a resource a minute; Infinity: not limited.
   * @returns -Infinity for one that used nothing.
   */
  dominantLog(capacity: (resource: FairResource) => number): number {
    let dominant = Number.NEGATIVE_INFINITY;
    for (const resource of FAIR_RESOURCES) {
      const log = this.#logs[resource];
      if (log === Number.NEGATIVE_INFINITY) continue;
      dominant = Math.max(dominant, log - Math.log2(capacity(resource)));
    }
    return dominant;
  }
}

export interface SharesHost {
  readonly clock: Clock;
  /** As they are in force. */
  readonly settings: () => FairnessSettings;
  /** Sessions that are remembered. */
  readonly capacity: number;
  readonly evicted: () => void;
  /** What there is of a resource a minute; Infinity: it is not limited. */
  readonly perMinute: (resource: FairResource) => number;
}

/** What each session uses of one upstream, and the order in which that puts them. */
export class SessionShares {
  readonly #host: SharesHost;
  readonly #usage: RecentMap<string, SessionUsage>;

  constructor(host: SharesHost) {
    this.#host = host;
    this.#usage = new RecentMap(host.capacity, host.evicted);
  }

  /** Counts what a session uses. Ahead of its use as it is expected, then by how much that was wrong. */
  account(session: string, amounts: FairAmounts): void {
    let usage = this.#usage.get(session);
    if (usage === undefined) {
      usage = new SessionUsage();
      this.#usage.set(session, usage);
    }
    const { clock, settings } = this.#host;
    const halfLives = clock.now() / settings().halfLifeMs;
    for (const resource of FAIR_RESOURCES) {
      const amount = amounts[resource] ?? 0;
      if (amount !== 0) usage.add(resource, amount, halfLives);
    }
  }

  /** Whether any of these sessions used anything. */
  usedBy(test: (session: string) => boolean): boolean {
    for (const [session] of this.#usage.entries()) if (test(session)) return true;
    return false;
  }

  /** A session's dominant share, in steps within which shares count as equal. @returns -Infinity for none. */
  rankOf(session: string): number {
    const usage = this.#usage.peek(session);
    if (usage === undefined) return Number.NEGATIVE_INFINITY;
    const { perMinute, settings } = this.#host;
    return Math.floor(usage.dominantLog(perMinute) / Math.log2(settings().equalWithin));
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
