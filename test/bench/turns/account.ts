// SPDX-License-Identifier: Apache-2.0
import { RESOURCES, type Resource } from '../../../daemon/scheduler/resources.ts';

const MINUTE_MS = 60_000;
/** Anthropic tells what is left of tokens rounded to thousands. */
const TOLD_TOKENS = 1_000;

/**
 * How an account counts a limit. `bucket`: refills evenly and holds a minute's worth, as Anthropic documents it.
 * `window`: whatever was used in the last 60 s.
 */
type Counting = 'bucket' | 'window';

export interface AccountOptions {
  readonly perMin: Readonly<Partial<Record<Resource, number>>>;
  readonly counting: Counting;
  /** Whether its answers tell of limits and of what is left; else only 429 does. */
  readonly tells: boolean;
  /** Whether it turns requests away when nothing is left; else it only counts. */
  readonly enforces: boolean;
}

/** What a model API lets one account use, and what it used. All times are those of {@link performance.now}. */
export class Account {
  /** Answers of 429. */
  refused = 0;
  /** Requests that were served. */
  served = 0;
  readonly #options: AccountOptions;
  readonly #meters = new Map<Resource, Meter>();

  constructor(options: AccountOptions) {
    this.#options = options;
    for (const resource of RESOURCES) {
      const limit = options.perMin[resource];
      if (limit !== undefined) this.#meters.set(resource, new Meter(limit, options.counting));
    }
  }

  /** A request has come. @returns how long until there is room for it, 0 if it is served now. */
  admit(inputTokens: number): number {
    let waitMs = 0;
    if (this.#options.enforces)
      for (const meter of this.#meters.values()) waitMs = Math.max(waitMs, meter.waitMs());
    if (waitMs > 0) {
      this.refused += 1;
      return waitMs;
    }
    this.served += 1;
    this.use('requests', 1);
    this.use('inputTokens', inputTokens);
    return 0;
  }

  use(resource: Resource, amount: number): void {
    this.#meters.get(resource)?.use(amount);
  }

  /** The most that was used in any 60 s, as a part of the limit. */
  worst(resource: Resource): number {
    return this.#meters.get(resource)?.worst ?? 0;
  }

  /** What was used since the start. */
  total(resource: Resource): number {
    return this.#meters.get(resource)?.total ?? 0;
  }

  /** Names and values in turn. */
  headers(): string[] {
    if (!this.#options.tells) return [];
    return Array.from(this.#meters, ([resource, meter]) => {
      const name = `anthropic-ratelimit-${resource.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
      const left = Math.max(0, Math.floor(meter.left()));
      const told = resource === 'requests' ? left : Math.round(left / TOLD_TOKENS) * TOLD_TOKENS;
      return [`${name}-limit`, `${meter.limit}`, `${name}-remaining`, `${told}`];
    }).flat();
  }
}

/** One limit. */
class Meter {
  readonly limit: number;
  total = 0;
  /** The most in any window, of 1. */
  worst = 0;
  readonly #counting: Counting;
  #level: number;
  #levelAtMs = performance.now();
  readonly #uses: { readonly atMs: number; readonly amount: number }[] = [];
  /** The first use that is in the window. */
  #first = 0;
  #inWindow = 0;

  constructor(limit: number, counting: Counting) {
    this.limit = limit;
    this.#counting = counting;
    this.#level = limit;
  }

  left(): number {
    this.#advance(performance.now());
    return this.#counting === 'bucket' ? this.#level : this.limit - this.#inWindow;
  }

  /** Until at least one is left. */
  waitMs(): number {
    const left = this.left();
    if (left >= 1) return 0;
    if (this.#counting === 'bucket') return ((1 - left) * MINUTE_MS) / this.limit;
    let used = this.#inWindow;
    for (let at = this.#first; at < this.#uses.length; at += 1) {
      const use = this.#uses[at] as { atMs: number; amount: number };
      used -= use.amount;
      if (this.limit - used >= 1) return Math.max(1, use.atMs + MINUTE_MS - performance.now());
    }
    return MINUTE_MS;
  }

  use(amount: number): void {
    if (amount === 0) return;
    const nowMs = performance.now();
    this.#advance(nowMs);
    this.#level -= amount;
    this.total += amount;
    this.#inWindow += amount;
    this.#uses.push({ atMs: nowMs, amount });
    this.worst = Math.max(this.worst, this.#inWindow / this.limit);
  }

  #advance(nowMs: number): void {
    this.#level = Math.min(this.limit, this.#level + ((nowMs - this.#levelAtMs) * this.limit) / MINUTE_MS);
    this.#levelAtMs = nowMs;
    for (;;) {
      const use = this.#uses[this.#first];
      if (use === undefined || use.atMs > nowMs - MINUTE_MS) return;
      this.#inWindow -= use.amount;
      this.#first += 1;
    }
  }
}
