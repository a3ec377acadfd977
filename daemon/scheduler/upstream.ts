// SPDX-License-Identifier: Apache-2.0
import { backgroundLanes } from './admission.ts';
import { LaneLimit } from './aimd.ts';
import { Breaker } from './breaker.ts';
import { DecayedMean } from './decayed.ts';
import { type FairResource, SessionUsage } from './fairness.ts';
import type { LaneLease } from './lease.ts';
import { LeveledQueue } from './leveled-queue.ts';
import type { Choice, Discipline, Level, QueueEntry } from './queue.ts';
import { type Amounts, configuredLimits, RateLimits } from './rate-limits.ts';
import { RecentMap } from './recent-map.ts';
import { RetryBudget } from './retry.ts';
import type { SchedulerSettings } from './settings.ts';
import type { Clock, HostPressure, Timer } from './types.ts';

export interface UpstreamKey {
  readonly provider: string;
  readonly credential: string;
  readonly modelClass: string;
}

export interface UpstreamHost {
  readonly clock: Clock;
  readonly settings: SchedulerSettings;
  readonly pressure: () => HostPressure;
  /** Give the turn its lane. Called once it is out of the queue. */
  readonly grant: (entry: QueueEntry, aged: boolean) => void;
  readonly evicted: () => void;
  /** In place of our own order; the simulator's baselines. */
  readonly discipline?: () => Discipline;
}

/** A minute, over which capacities count. */
const MINUTE_MS = 60_000;
/** What a turn is taken to hold its lane for before any has ended: the mean of recorded agent turns is near it. */
const FIRST_HOLD_MS = 10_000;
const HOLD_WEIGHT = 0.1;

/** What shares lanes and rate limits: one model class of one provider under one credential. */
export class Upstream {
  readonly key: UpstreamKey;
  readonly lanes: LaneLimit;
  readonly limits: RateLimits;
  readonly breaker = new Breaker();
  readonly retryBudget: RetryBudget;
  readonly expectedOutput: DecayedMean;
  readonly expectedHoldMs = new DecayedMean(FIRST_HOLD_MS, HOLD_WEIGHT);
  readonly queue: Discipline;
  readonly leases = new Set<LaneLease>();
  /** Turns that are not over. */
  turns = 0;
  /** Answers of 429 and 529 in a row that named no time. */
  unnamedRefusals = 0;
  pausedUntilMs = Number.NEGATIVE_INFINITY;
  readonly #host: UpstreamHost;
  readonly #usage: RecentMap<string, SessionUsage>;
  readonly #heldAtLevel: [number, number, number] = [0, 0, 0];
  #timer: Timer | null = null;
  #dispatching = false;

  constructor(key: UpstreamKey, host: UpstreamHost) {
    const { settings, clock } = host;
    this.key = key;
    this.#host = host;
    this.lanes = new LaneLimit(settings.lanes);
    this.limits = new RateLimits(configuredLimits(settings.limits.configured, key), clock.now());
    this.retryBudget = new RetryBudget(settings.retry);
    this.expectedOutput = new DecayedMean(settings.limits.outputTokens, settings.limits.outputWeight);
    this.#usage = new RecentMap(settings.tables.sessions, host.evicted);
    this.queue = host.discipline?.() ?? new LeveledQueue(settings.levels, (session) => this.#rankOf(session));
  }

  /** What a turn is expected to use. */
  expected({ turn }: QueueEntry): Amounts {
    return { requests: 1, inputTokens: turn.inputTokens, outputTokens: this.expectedOutput.value };
  }

  heldAtLevel(level: Level): number {
    return this.#heldAtLevel[level];
  }

  /** A lease was granted at this level, or is over. */
  laneHeld(level: Level, by: 1 | -1): void {
    this.#heldAtLevel[level] += by;
  }

  /** Counts what a session uses. Ahead of its use as it is expected, then by how much that was wrong. */
  account(session: string, resource: FairResource, amount: number): void {
    if (amount === 0) return;
    let usage = this.#usage.get(session);
    if (usage === undefined) {
      usage = new SessionUsage();
      this.#usage.set(session, usage);
    }
    usage.add(resource, amount, this.#halfLives());
  }

  /** Gives lanes to turns that wait, as long as there are lanes and the limits allow. */
  dispatch(): void {
    // What a grant brings about (an end, another turn) is seen to by the loop that granted.
    if (this.#dispatching) return;
    this.#dispatching = true;
    try {
      this.#timer?.cancel();
      this.#timer = null;
      while (this.queue.size > 0 && this.leases.size < this.lanes.limit) {
        const nowMs = this.#host.clock.now();
        const found = this.#choose(nowMs);
        if ('wakeAtMs' in found) {
          this.#wake(found.wakeAtMs, nowMs);
          return;
        }
        this.queue.take(found, nowMs);
        this.#host.grant(found.entry, found.aged);
      }
    } finally {
      this.#dispatching = false;
    }
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  /** Who goes now, or when to look again. */
  #choose(nowMs: number): Choice | { readonly wakeAtMs: number } {
    if (nowMs < this.pausedUntilMs) return { wakeAtMs: this.pausedUntilMs };
    const breaker = this.breaker.state(nowMs);
    if (breaker === 'open') return { wakeAtMs: nowMs + this.breaker.leftMs(nowMs) };
    const { admission } = this.#host.settings;
    const background = backgroundLanes(this.lanes.limit, this.#host.pressure(), admission);
    const agingAtMs = this.queue.agingAtMs();
    const onlyBackground = this.queue.next(nowMs, (level) => level < 2) === undefined;
    // Nothing but background turns, one of which has waited too long: they go, whatever the host says.
    const open = this.#heldAtLevel[2] < background || (onlyBackground && agingAtMs <= nowMs);
    let worst = open ? 2 : 1;
    let wakeAtMs = agingAtMs > nowMs ? agingAtMs : Number.POSITIVE_INFINITY;
    for (;;) {
      const choice = this.queue.next(nowMs, (level) => level <= worst);
      if (choice === undefined) return { wakeAtMs };
      const { entry, aged } = choice;
      const keep = aged ? 0 : admission.reserve[entry.level];
      const waitMs = this.limits.waitMs(this.expected(entry), keep, nowMs);
      if (waitMs === 0) return choice;
      wakeAtMs = Math.min(wakeAtMs, nowMs + waitMs);
      // Better ones may go before it while it does not fit, worse ones never; and nobody before one that has
      // waited too long.
      if (aged || entry.level === 0) return { wakeAtMs };
      worst = entry.level - 1;
    }
  }

  #wake(atMs: number, nowMs: number): void {
    if (atMs === Number.POSITIVE_INFINITY) return;
    this.#timer = this.#host.clock.setTimer(atMs - nowMs, () => this.dispatch());
  }

  #rankOf(session: string): number {
    const usage = this.#usage.peek(session);
    if (usage === undefined) return Number.NEGATIVE_INFINITY;
    const log = usage.dominantLog((resource) => this.#capacity(resource));
    return Math.floor(log / Math.log2(this.#host.settings.fairness.equalWithin));
  }

  #capacity(resource: FairResource): number {
    return resource === 'laneMs' ? this.lanes.limit * MINUTE_MS : this.limits.limitPerMin(resource);
  }

  #halfLives(): number {
    return this.#host.clock.now() / this.#host.settings.fairness.halfLifeMs;
  }
}
