// SPDX-License-Identifier: Apache-2.0
import { rateReadings } from './rate-headers.ts';
import type { ConfiguredLimit } from './settings.ts';
import { TokenBucket } from './token-bucket.ts';
import { type BucketSnapshot, type HeaderReader, RESOURCES, type Resource } from './types.ts';

/** How much of each resource. */
export type Amounts = Readonly<Record<Resource, number>>;

type Limits = Readonly<Partial<Record<Resource, number>>>;

/** The limits that are configured for an upstream: of each resource the smallest that applies. */
export function configuredLimits(
  configured: readonly ConfiguredLimit[],
  upstream: { readonly provider: string; readonly modelClass: string },
): Limits {
  const limits: Partial<Record<Resource, number>> = {};
  for (const { provider, modelClass, perMin } of configured) {
    if (provider !== undefined && provider !== upstream.provider) continue;
    if (modelClass !== undefined && modelClass !== upstream.modelClass) continue;
    for (const resource of RESOURCES) {
      const limit = perMin[resource];
      if (limit !== undefined) limits[resource] = Math.min(limit, limits[resource] ?? limit);
    }
  }
  return limits;
}

/** The rate limits of one upstream: configured, learned from its headers, or unknown and so without bound. */
export class RateLimits {
  readonly #configured: Limits;
  readonly #buckets = new Map<Resource, TokenBucket>();
  /** Output counts towards the input's limit too. */
  #bothTokens = false;

  constructor(configured: Limits, nowMs: number) {
    this.#configured = configured;
    for (const resource of RESOURCES) {
      const perMin = configured[resource];
      if (perMin !== undefined) this.#buckets.set(resource, new TokenBucket(perMin, nowMs));
    }
  }

  /** A minute; Infinity if unknown. */
  limitPerMin(resource: Resource): number {
    return this.#buckets.get(resource)?.limitPerMin ?? Number.POSITIVE_INFINITY;
  }

  /**
   * How long until a turn fits, 0 if it does now; Infinity while only turns under way can make room.
   * @param keepShare of each limit that must be left over.
   */
  waitMs(amounts: Amounts, keepShare: number, nowMs: number): number {
    let waitMs = 0;
    for (const [resource, bucket] of this.#buckets) {
      const amount = this.#counted(resource, amounts);
      waitMs = Math.max(waitMs, bucket.waitMs(amount, keepShare * bucket.limitPerMin, nowMs));
    }
    return waitMs;
  }

  /** To be settled, whatever becomes of the turn. */
  reserve(amounts: Amounts): Reservation {
    const parts = [...this.#buckets].map(([resource, bucket]) => {
      return new Part(resource, bucket, this.#counted(resource, amounts));
    });
    return new Reservation(parts, (resource, used) => this.#counted(resource, used));
  }

  /** @returns how many of the values cannot be, and whether a limit is another one now. */
  learn(headers: HeaderReader, nowMs: number): { readonly bad: number; readonly changed: boolean } {
    const { readings, bad } = rateReadings(headers);
    let changed = false;
    for (const { resource, limitPerMin, remaining, bothTokens } of readings) {
      if (bothTokens) this.#bothTokens = true;
      // What the administrator allows may be less than the upstream would.
      const limit = Math.min(limitPerMin, this.#configured[resource] ?? limitPerMin);
      const left = remaining === null ? null : Math.min(remaining, limit);
      const bucket = this.#buckets.get(resource);
      changed ||= bucket?.limitPerMin !== limit;
      if (bucket === undefined) this.#buckets.set(resource, new TokenBucket(limit, nowMs, left ?? limit));
      else bucket.learn(limit, left, nowMs);
    }
    return { bad, changed };
  }

  /** A limit as it was saved, with what it had left. */
  restore(resource: Resource, limitPerMin: number, available: number, nowMs: number): void {
    const limit = Math.min(limitPerMin, this.#configured[resource] ?? limitPerMin);
    this.#buckets.set(resource, new TokenBucket(limit, nowMs, available));
  }

  snapshot(nowMs: number): BucketSnapshot[] {
    return RESOURCES.map((resource) => {
      const bucket = this.#buckets.get(resource);
      return {
        resource,
        limitPerMin: bucket?.limitPerMin ?? null,
        available: bucket?.available(nowMs) ?? null,
        reserved: bucket?.reserved ?? 0,
      };
    });
  }

  #counted(resource: Resource, amounts: Amounts): number {
    if (resource !== 'inputTokens' || !this.#bothTokens) return amounts[resource];
    return amounts.inputTokens + amounts.outputTokens;
  }
}

/** What one turn holds of each bucket that there was when it was sent. */
export class Reservation {
  readonly #parts: readonly Part[];
  readonly #counted: (resource: Resource, used: Amounts) => number;

  constructor(parts: readonly Part[], counted: (resource: Resource, used: Amounts) => number) {
    this.#parts = parts;
    this.#counted = counted;
  }

  /** The upstream has answered: what its headers tell next includes this turn's request and input. */
  arrived(nowMs: number): void {
    for (const part of this.#parts) if (part.resource !== 'outputTokens') part.arrived(nowMs);
  }

  /**
   * So much was used so far. The reservation stays: how much a model has written says little about how much it
   * will still write, and those that are still at it when a limit is near are the long ones.
   */
  usedSoFar(used: Amounts, nowMs: number): void {
    for (const part of this.#parts) part.usedAtLeast(this.#counted(part.resource, used), nowMs);
  }

  /** The turn is over. */
  settle(used: Amounts, nowMs: number): void {
    for (const part of this.#parts) part.settle(this.#counted(part.resource, used), nowMs);
  }
}

class Part {
  readonly resource: Resource;
  readonly #amount: number;
  readonly #bucket: TokenBucket;
  #held = true;
  #used = 0;
  #usedAtMs = 0;

  constructor(resource: Resource, bucket: TokenBucket, amount: number) {
    this.resource = resource;
    this.#amount = amount;
    this.#bucket = bucket;
    bucket.reserve(amount);
  }

  arrived(nowMs: number): void {
    this.#release();
    this.usedAtLeast(this.#amount, nowMs);
  }

  usedAtLeast(used: number, nowMs: number): void {
    if (used <= this.#used) return;
    this.#bucket.use(used - this.#used, nowMs);
    this.#used = used;
    this.#usedAtMs = nowMs;
  }

  settle(used: number, nowMs: number): void {
    this.#release();
    this.usedAtLeast(used, nowMs);
    if (used < this.#used) this.#bucket.refund(this.#used - used, this.#usedAtMs, nowMs);
    this.#used = used;
  }

  #release(): void {
    if (this.#held) this.#bucket.release(this.#amount);
    this.#held = false;
  }
}
