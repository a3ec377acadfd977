// SPDX-License-Identifier: Apache-2.0
import { admittedLanes } from './admission.ts';
import { LaneLimit } from './aimd.ts';
import { Breaker } from './breaker.ts';
import type { Clock, Timer } from './clock.ts';
import { DecayedMean } from './decayed.ts';
import { SessionShares } from './fairness.ts';
import { LeveledQueue } from './leveled-queue.ts';
import {
  type Choice,
  type Discipline,
  type DisciplineMaker,
  LEVELS,
  type Level,
  type QueueEntry,
} from './queue.ts';
import { type Amounts, configuredLimits, RateLimits } from './rate-limits.ts';
import { RetryBudget } from './retry.ts';
import type { SchedulerSettings } from './settings.ts';
import type { Subscription } from './subscription.ts';
import type { HostPressure, Turn } from './types.ts';

export interface UpstreamKey {
  readonly provider: string;
  readonly credential: string;
  readonly modelClass: string;
}

export interface UpstreamHost {
  readonly clock: Clock;
  /** As they are in force. */
  readonly settings: () => SchedulerSettings;
  readonly pressure: () => HostPressure;
  /** Give the turn its lane. Called once it is out of the queue. */
  readonly grant: (entry: QueueEntry, aged: boolean) => void;
  /** The turn would have a lane but for the host's memory. Told again as long as that is so. */
  readonly held: (entry: QueueEntry) => void;
  readonly evicted: () => void;
  /** Of the account, which its other upstreams have too. */
  readonly subscription: Subscription;
  /** In place of our own order. */
  readonly discipline?: DisciplineMaker;
}

/** A minute, over which capacities count. */
const MINUTE_MS = 60_000;
/** What a turn is taken to hold its lane for before any has ended: the mean of recorded agent turns is near it. */
const FIRST_HOLD_MS = 10_000;
const HOLD_WEIGHT = 0.1;
const NO_LEVELS: ReadonlySet<Level> = new Set();

/** What shares lanes and rate limits: one model class of one provider under one credential. */
export class Upstream {
  readonly key: UpstreamKey;
  readonly lanes: LaneLimit;
  readonly limits: RateLimits;
  readonly subscription: Subscription;
  readonly breaker = new Breaker();
  readonly retryBudget: RetryBudget;
  readonly expectedOutput: DecayedMean;
  readonly expectedHoldMs = new DecayedMean(FIRST_HOLD_MS, HOLD_WEIGHT);
  readonly shares: SessionShares;
  readonly queue: Discipline;
  /** Lanes that turns hold. */
  held = 0;
  /** Output of turns that are being written. */
  writtenUnderWay = 0;
  /** Turns that are not over. */
  turns = 0;
  /** Answers of 429 and 529 in a row that named no time. */
  unnamedRefusals = 0;
  pausedUntilMs = Number.NEGATIVE_INFINITY;
  readonly #host: UpstreamHost;
  readonly #heldAtLevel: [number, number, number] = [0, 0, 0];
  readonly #lastCameMs: [number, number, number] = [-MINUTE_MS, -MINUTE_MS, -MINUTE_MS];
  /** From this level on limits are handed out evenly: the best that waits and had to for one. Infinity: none has. */
  #evenFrom = Number.POSITIVE_INFINITY;
  /** Until when a turn that waited did not fit into a limit. */
  #shortUntilMs = Number.NEGATIVE_INFINITY;
  #timer: Timer | null = null;
  #dispatching = false;

  constructor(key: UpstreamKey, host: UpstreamHost) {
    const { clock } = host;
    const settings = host.settings();
    this.key = key;
    this.#host = host;
    this.subscription = host.subscription;
    this.lanes = new LaneLimit(settings.lanes);
    this.limits = new RateLimits(configuredLimits(settings.limits.configured, key), clock.now());
    this.retryBudget = new RetryBudget(settings.retry);
    this.expectedOutput = new DecayedMean(settings.limits.outputTokens, settings.limits.outputWeight);
    this.shares = new SessionShares({
      clock,
      settings: () => host.settings().fairness,
      capacity: settings.tables.sessions,
      evicted: host.evicted,
      perMinute: (resource) =>
        resource === 'laneMs' ? this.lanes.limit * MINUTE_MS : this.limits.limitPerMin(resource),
    });
    const rankOf = (session: string): number => this.shares.rankOf(session);
    this.queue = host.discipline?.(rankOf) ?? new LeveledQueue(settings.levels, rankOf);
  }

  /**
   * What is reserved for a turn: of output a mean deviation more than the mean, because a limit is passed by the
   * turns that write more (as TCP's retransmission timer; Jacobson, SIGCOMM 1988). What those under way have written
   * counts too: in the first minute only the short ones have ended.
   */
  expected(turn: Turn): Amounts {
    const { upper, nextWeight } = this.expectedOutput;
    const outputTokens = upper + nextWeight * this.writtenUnderWay;
    return { requests: 1, inputTokens: turn.inputTokens, outputTokens };
  }

  /** The one that keeps turns back, for good or but for one that tries; undefined: none does. */
  closedBy(nowMs: number): Breaker | undefined {
    const both = [this.subscription.breaker, this.breaker];
    return (
      both.find((breaker) => breaker.state(nowMs) === 'open') ??
      both.find((breaker) => breaker.state(nowMs) === 'half-open')
    );
  }

  heldAtLevel(level: Level): number {
    return this.#heldAtLevel[level];
  }

  /** A turn of this level was submitted. */
  came(level: Level, nowMs: number): void {
    this.#lastCameMs[level] = nowMs;
  }

  /** A lease was granted at this level, or is over. */
  laneHeld(level: Level, by: 1 | -1): void {
    this.held += by;
    this.#heldAtLevel[level] += by;
  }

  /** Gives lanes to turns that wait, as long as there are lanes and the limits allow. */
  dispatch(): void {
    // What a grant brings about (an end, another turn) is seen to by the loop that granted.
    if (this.#dispatching) return;
    this.#dispatching = true;
    try {
      this.#timer?.cancel();
      this.#timer = null;
      while (this.queue.size > 0 && this.held < this.lanes.limit) {
        const nowMs = this.#host.clock.now();
        const found = this.#choose(nowMs);
        if ('wakeAtMs' in found) {
          this.#wake(found.wakeAtMs, nowMs);
          return;
        }
        this.queue.take(found, nowMs);
        this.#host.grant(found.entry, found.aged);
      }
      this.#ease(this.#host.clock.now());
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
    const breaker = this.closedBy(nowMs);
    if (breaker?.state(nowMs) === 'open') return { wakeAtMs: nowMs + breaker.leftMs(nowMs) };
    const agingAtMs = this.queue.agingAtMs();
    this.#ease(nowMs);
    const closed = this.#closedLevels(nowMs, agingAtMs <= nowMs);
    let worst = 2;
    let wakeAtMs = agingAtMs > nowMs ? agingAtMs : Number.POSITIVE_INFINITY;
    for (;;) {
      const choice = this.queue.next(nowMs, (level) => level <= worst && !closed.has(level));
      if (choice === undefined) {
        this.#tellHeld(closed, nowMs);
        return { wakeAtMs };
      }
      const { entry, aged } = choice;
      const keep = aged ? 0 : this.#reserve(entry.level, nowMs);
      const waitMs = this.#waitMs(entry, keep, nowMs);
      if (waitMs === 0) return choice;
      const shortMs = this.limits.pace(this.expected(entry.turn), nowMs);
      if (shortMs > 0) {
        // What only turns under way can make room for is looked at again with their ends.
        this.#shortUntilMs = nowMs + (shortMs === Number.POSITIVE_INFINITY ? 0 : shortMs);
        if (entry.level < this.#evenFrom) this.#evenFrom = entry.level;
      }
      wakeAtMs = Math.min(wakeAtMs, nowMs + waitMs);
      // Better ones may go before it while it does not fit, worse ones never; and nobody before one that has
      // waited too long.
      if (aged || entry.level === 0) return { wakeAtMs };
      worst = entry.level - 1;
    }
  }

  /**
   * Limits are handed out evenly to those levels of which turns wait for them. Others may wait for as long as they
   * have to, for lanes or for memory, and so may these: over a minute everything there is would have been handed out.
   */
  #ease(nowMs: number): void {
    if (this.#evenFrom === Number.POSITIVE_INFINITY) return;
    const closed = this.#closedLevels(nowMs, this.queue.agingAtMs() <= nowMs);
    const waits = (level: Level) =>
      level >= this.#evenFrom &&
      !closed.has(level) &&
      this.queue.next(nowMs, (each) => each === level) !== undefined;
    const best = nowMs - this.#shortUntilMs < MINUTE_MS ? LEVELS.find(waits) : undefined;
    this.#evenFrom = best ?? Number.POSITIVE_INFINITY;
    if (best === undefined) this.limits.relax();
  }

  /** Levels that hold as many lanes as the host's memory allows them. */
  #closedLevels(nowMs: number, aged: boolean): ReadonlySet<Level> {
    const host = this.#host.pressure();
    const { admission } = this.#host.settings();
    const full = LEVELS.filter(
      (level) => this.#heldAtLevel[level] >= admittedLanes(level, this.lanes.limit, host, admission),
    );
    if (full.length === 0) return NO_LEVELS;
    const closed: ReadonlySet<Level> = new Set(full);
    // Nothing but turns of such levels, one of which has waited too long: they go, whatever the host says.
    const onlyThey = aged && this.queue.next(nowMs, (level) => !closed.has(level)) === undefined;
    return onlyThey ? NO_LEVELS : closed;
  }

  #tellHeld(closed: ReadonlySet<Level>, nowMs: number): void {
    for (const level of closed) {
      // One that does not fit into the rate limits waits for those.
      const choice = this.queue.next(nowMs, (each) => each === level);
      if (choice?.entry.level !== level) continue;
      const fits = this.#waitMs(choice.entry, this.#reserve(level, nowMs), nowMs) === 0;
      if (fits) this.#host.held(choice.entry);
    }
  }

  /** Until a turn fits into the limits; 0 if it does now. */
  #waitMs(entry: QueueEntry, keep: number, nowMs: number): number {
    const evenly = entry.level >= this.#evenFrom;
    const waitMs = this.limits.waitMs(this.expected(entry.turn), keep, nowMs, evenly);
    return Math.max(waitMs, this.subscription.waitMs(keep, this.#host.clock.wallNow()));
  }

  /** What a turn must leave of each limit, as long as there are better ones that it could be left to. */
  #reserve(level: Level, nowMs: number): number {
    const share = this.#host.settings().admission.reserve[level];
    return this.#lastCameMs.some((atMs, better) => better < level && nowMs - atMs < MINUTE_MS) ? share : 0;
  }

  #wake(atMs: number, nowMs: number): void {
    if (atMs === Number.POSITIVE_INFINITY) return;
    this.#timer = this.#host.clock.setTimer(atMs - nowMs, () => this.dispatch());
  }
}
