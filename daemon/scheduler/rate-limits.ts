// SPDX-License-Identifier: Apache-2.0
import { rateReadings } from './rate-headers.ts';
import { RESOURCES, type Resource } from './resources.ts';
import type { ConfiguredLimit } from './settings.ts';
import { TokenBucket } from './token-bucket.ts';
import type { HeaderReader } from './types.ts';

export interface BucketSnapshot {
  readonly resource: Resource;
  /** A minute; null: unknown, so unlimited. */
  readonly limitPerMin: number | null;
  /** Less reservations; below 0 after a turn that used more than was reserved. */
  readonly available: number | null;
  readonly reserved: number;
}

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
  /** Of every resource: what is used before its limit is known counts towards it. */
  readonly #buckets: Record<Resource, TokenBucket>;
  /** Output counts towards the input's limit too. */
  #bothTokens = false;

  constructor(configured: Limits, nowMs: number) {
    this.#configured = configured;
    const bucket = (resource: Resource) =>
      new TokenBucket(configured[resource] ?? Number.POSITIVE_INFINITY, nowMs);
    this.#buckets = {
      requests: bucket('requests'),
      inputTokens: bucket('inputTokens'),
      outputTokens: bucket('outputTokens'),
    };
  }

  /** A minute; Infinity if unknown. */
  limitPerMin(resource: Resource): number {
    return this.#buckets[resource].limitPerMin;
  }

  /**
   * How long until a turn fits, 0 if it does now; Infinity while only turns under way can make room.
   * @param keepShare of each limit that must be left over.
   * @param evenly whether it waits for its part of what is handed out evenly.
   */
  waitMs(amounts: Amounts, keepShare: number, nowMs: number, evenly = true): number {
    let waitMs = 0;
    for (const resource of RESOURCES) {
      const bucket = this.#buckets[resource];
      const keep = keepShare === 0 ? 0 : keepShare * bucket.limitPerMin;
      waitMs = Math.max(waitMs, bucket.waitMs(this.#counted(resource, amounts), keep, nowMs, evenly));
    }
    return waitMs;
  }

  /**
   * A turn waits: what it does not fit into is handed out evenly until nobody waits.
   * @returns how long until it fits; 0: there is no such limit, and it is something that better turns may use.
   */
  pace(amounts: Amounts, nowMs: number): number {
    let shortMs = 0;
    for (const resource of RESOURCES) {
      const bucket = this.#buckets[resource];
      const waitMs = bucket.waitMs(this.#counted(resource, amounts), 0, nowMs, false);
      if (waitMs === 0) continue;
      bucket.pace(nowMs);
      shortMs = Math.max(shortMs, waitMs);
    }
    return shortMs;
  }

  relax(): void {
    for (const resource of RESOURCES) this.#buckets[resource].relax();
  }

  /** To be settled, whatever becomes of the turn. */
  reserve(amounts: Amounts): Reservation {
    const parts = RESOURCES.map(
      (resource) => new Part(resource, this.#buckets[resource], this.#counted(resource, amounts)),
    );
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
      const bucket = this.#buckets[resource];
      changed ||= bucket.limitPerMin !== limit;
      bucket.learn(limit, left, nowMs);
    }
    return { bad, changed };
  }

  /** A limit as it was saved, with what it had left. */
  restore(resource: Resource, limitPerMin: number, available: number, nowMs: number): void {
    const limit = Math.min(limitPerMin, this.#configured[resource] ?? limitPerMin);
    this.#buckets[resource] = new TokenBucket(limit, nowMs, available);
  }

  snapshot(nowMs: number): BucketSnapshot[] {
    return RESOURCES.map((resource) => {
      const bucket = this.#buckets[resource];
      const { limitPerMin, reserved } = bucket;
      if (limitPerMin === Number.POSITIVE_INFINITY)
        return { resource, limitPerMin: null, available: null, reserved };
      return { resource, limitPerMin, available: bucket.available(nowMs), reserved };
    });
  }

  #counted(resource: Resource, amounts: Amounts): number {
    if (resource !== 'inputTokens' || !this.#bothTokens) return amounts[resource];
    return amounts.inputTokens + amounts.outputTokens;
  }
}

/** What one turn holds of each bucket. */
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
    this.usedAtLeast(this.#amount, nowMs);
    this.#release();
  }

  usedAtLeast(used: number, nowMs: number): void {
    if (used <= this.#used) return;
    this.#bucket.use(used - this.#used, nowMs);
    this.#used = used;
    this.#usedAtMs = nowMs;
  }

  settle(used: number, nowMs: number): void {
    this.usedAtLeast(used, nowMs);
    if (used < this.#used) this.#bucket.refund(this.#used - used, this.#usedAtMs, nowMs);
    this.#used = used;
    this.#release();
  }

  #release(): void {
    if (this.#held) this.#bucket.release(this.#amount);
    this.#held = false;
  }
}
