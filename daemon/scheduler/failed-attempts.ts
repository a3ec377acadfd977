// SPDX-License-Identifier: Apache-2.0
import type { Breaker } from './breaker.ts';
import type { Conditions } from './conditions.ts';
import type { LiveTurns, TurnLease, TurnState } from './live-turns.ts';
import type { Places } from './places.ts';
import type { Silence } from './reaper.ts';
import type { Refusal } from './refusals.ts';
import { refusals } from './refusals.ts';
import { afterError, afterHang, isTurnedAway, type RetryCandidate } from './retry.ts';
import { type RetryAdvice, retryAdvice } from './retry-after.ts';
import { rejectionIn, type SubscriptionReading, subscriptionReading } from './subscription-headers.ts';
import type { UpstreamError, Verdict } from './types.ts';
import type { Upstream } from './upstream.ts';
import type { WaitingTurns } from './waiting-turns.ts';

/** A subscription's limit that is reached, as the answer said that turned a turn away. */
interface Rejection {
  readonly reading: SubscriptionReading;
  /** Of the whole account, not of one model. */
  readonly account: boolean;
}

/** What becomes of turns whose attempt hung or failed, and what their upstream is given until then: a pause, or rest. */
export class FailedAttempts {
  readonly #conditions: Readonly<Conditions>;
  readonly #turns: LiveTurns;
  readonly #waiting: WaitingTurns;
  readonly #places: Places;

  /** @param places remembers whose retries are used up. */
  constructor(conditions: Readonly<Conditions>, turns: LiveTurns, waiting: WaitingTurns, places: Places) {
    this.#conditions = conditions;
    this.#turns = turns;
    this.#waiting = waiting;
    this.#places = places;
  }

  hung(lease: TurnLease, { cause }: Silence, nowMs: number): Verdict {
    const state = lease.holder;
    const { random, settings } = this.#conditions;
    const { retryBudget, queue } = state.upstream;
    if (lease.attempt > 0) retryBudget.lost(nowMs - lease.grantedAtMs, nowMs);
    // A lane that nobody waits for is taken from nobody.
    const affordable = queue.size === 0 || retryBudget.allows(nowMs);
    const verdict = afterHang(candidateOf(lease), cause, affordable, nowMs, random(), settings.retry);
    if (verdict.action === 'retry') state.retries += 1;
    else this.#remember(state, verdict, nowMs);
    return verdict;
  }

  error(
    lease: TurnLease,
    { status, quotaExhausted = false, headers }: UpstreamError,
    nowMs: number,
  ): Verdict {
    const state = lease.holder;
    const { upstream } = state;
    const { clock, random, settings } = this.#conditions;
    const wallNowMs = clock.wallNow();
    const { reading } = subscriptionReading(headers ?? (() => null), wallNowMs);
    // A rejection that was served all the same, for money beyond the subscription, is none: not even where an error
    // event, with a status of its own, then ends what was served.
    const rejected = status === 429 && !lease.isServed;
    const rejection = rejected ? rejectionIn(reading, wallNowMs) : null;
    const advised = retryAdvice(headers ?? (() => null), wallNowMs);
    const advice =
      rejection === null ? advised : { ...advised, afterMs: Math.max(rejection.forMs, advised.afterMs ?? 0) };
    const turnedAway = isTurnedAway(status);
    if (turnedAway) {
      const reached = rejection === null || reading === null ? null : { reading, account: rejection.account };
      this.#turnedAway(upstream, status, advice, reached, nowMs);
    }
    if (quotaExhausted) {
      this.#open(upstream.breaker, advice.afterMs ?? settings.limits.quotaPauseMs, refusals.quota);
    }
    const told = { status, advice, quotaExhausted };
    const verdict = afterError(candidateOf(lease), told, nowMs, random(), settings.retry);
    if (verdict.action !== 'retry') this.#remember(state, verdict, nowMs);
    else if (turnedAway) state.turnedAway += 1;
    else state.retries += 1;
    return verdict;
  }

  /** The upstream has had enough for now: it is given less, a pause, or rest for as long as it named. */
  #turnedAway(
    upstream: Upstream,
    status: number | null,
    { afterMs }: RetryAdvice,
    rejection: Rejection | null,
    nowMs: number,
  ): void {
    const { counters, settings } = this.#conditions;
    const { pauseMs: firstMs, pauseMostMs, pauseUnnamedMostMs } = settings.limits;
    counters[status === 429 ? 'rateLimited' : 'overloaded'] += 1;
    let pauseMs = afterMs;
    if (pauseMs === null) {
      pauseMs = Math.min(firstMs * 2 ** upstream.unnamedRefusals, pauseUnnamedMostMs);
      // Those that were under way together are turned away together.
      if (nowMs >= upstream.pausedUntilMs) upstream.unnamedRefusals += 1;
    }
    // Overload passes, and no answer knows when: only of an account's limits it can be known for longer.
    if (status === 529) pauseMs = Math.min(pauseMs, pauseMostMs);
    // An account that is used up is no upstream that bears less.
    if (rejection === null) upstream.lanes.turnedAway(nowMs, pauseMs);
    if (pauseMs <= pauseMostMs) {
      upstream.pausedUntilMs = Math.max(upstream.pausedUntilMs, nowMs + pauseMs);
    } else if (rejection === null) {
      this.#open(upstream.breaker, pauseMs, refusals.quota);
    } else {
      const { account, reading } = rejection;
      const breaker = account ? upstream.subscription.breaker : upstream.breaker;
      this.#open(breaker, pauseMs, (afterMs) => refusals.subscription(afterMs, reading.headers));
    }
  }

  /**
   * Nothing is served for now, and whoever waits is told rather than kept.
   * @param refusal what they are told, by when they may come back.
   */
  #open(breaker: Breaker, forMs: number, refusal: (afterMs: number) => Refusal): void {
    const { clock, settings } = this.#conditions;
    const nowMs = clock.now();
    const untilMs = nowMs + forMs;
    breaker.opened(nowMs + Math.min(forMs, settings.limits.tryMs), (leftMs) =>
      // Once that is over and a turn tries, only the breaker knows when to come back.
      refusal(Math.max(leftMs, untilMs - clock.now())),
    );
    for (const state of [...this.#turns]) {
      if (state.upstream.closedBy(nowMs) === breaker && state.phase !== 'running') {
        this.#waiting.refuse(state, breaker.refusal(nowMs));
      }
    }
  }

  /** A request whose retries are used up gets no new ones when its client sends it again. */
  #remember({ retries, turn }: TurnState, verdict: Verdict, nowMs: number): void {
    if (verdict.action !== 'fail' || retries === 0) return;
    const { rememberMs } = this.#conditions.settings.retry;
    this.#places.keep(turn, { sinceMs: nowMs, retries }, nowMs + rememberMs);
  }
}

function candidateOf(lease: TurnLease): RetryCandidate {
  const { turn, retries, turnedAway, submittedAtMs } = lease.holder;
  return {
    retryable: turn.retryable,
    committed: lease.isCommitted,
    retries,
    turnedAway,
    attempt: lease.attempt,
    submittedAtMs,
  };
}
