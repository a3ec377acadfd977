// SPDX-License-Identifier: Apache-2.0
import type { Conditions } from './conditions.ts';
import type { FailedAttempts } from './failed-attempts.ts';
import { LaneLease, type LeaseEnd, type LeaseHost } from './lease.ts';
import type { LiveTurns, TurnLease, TurnState } from './live-turns.ts';
import type { Amounts } from './rate-limits.ts';
import type { HungEvidence, Silence } from './reaper.ts';
import type { RecentMap } from './recent-map.ts';
import type { Runs } from './runs.ts';
import { subscriptionReading } from './subscription-headers.ts';
import type { HeaderReader, Usage, Verdict } from './types.ts';
import { LEAST_WAIT_MS, type WaitingTurns } from './waiting-turns.ts';

export interface LeasesParts {
  readonly turns: LiveTurns;
  readonly waiting: WaitingTurns;
  readonly failed: FailedAttempts;
  readonly runs: Runs;
  /** Tokens of each session. */
  readonly usedTokens: RecentMap<string, number>;
}

/**
 * Turns that have a lane, from the grant on: what their answers tell of the upstream, and what is settled when the
 * attempt is over. What was expected of it is reserved and counted ahead, then put right.
 */
export class Leases implements LeaseHost<TurnState> {
  readonly #conditions: Readonly<Conditions>;
  readonly #parts: LeasesParts;
  #frozen: ReadonlySet<number> = new Set();

  constructor(conditions: Readonly<Conditions>, parts: LeasesParts) {
    this.#conditions = conditions;
    this.#parts = parts;
  }

  /** @param aged it has waited too long and went before its turn. */
  grant(state: TurnState, aged: boolean): void {
    const { clock, counters, settings } = this.#conditions;
    const { turn, upstream } = state;
    const nowMs = clock.now();
    const waitedMs = nowMs - state.phaseAtMs;
    this.#parts.waiting.left(state);
    const expected = upstream.expected(turn);
    const countedLaneMs = upstream.expectedHoldMs.value;
    upstream.shares.account(turn.session, { laneMs: countedLaneMs, ...expected });
    upstream.queue.used(turn.session);
    const lease = new LaneLease(
      clock,
      settings.reaper,
      {
        holder: state,
        turn,
        attempt: state.grants,
        waitedMs,
        // Its client has waited since it asked, not since it got a lane.
        clientLeftMs:
          turn.clientTimeoutMs === undefined
            ? undefined
            : Math.max(LEAST_WAIT_MS, turn.clientTimeoutMs + state.submittedAtMs - nowMs),
        reservation: upstream.limits.reserve(expected),
        probes: [upstream.subscription.breaker, upstream.breaker].filter((breaker) => breaker.sent(nowMs)),
        countedLaneMs,
        countedOutputTokens: expected.outputTokens,
      },
      this,
    );
    state.grants += 1;
    state.lease = lease;
    upstream.laneHeld(state.level, 1);
    this.#parts.turns.moved(state, 'running');
    counters.dispatched += 1;
    if (aged) counters.aged += 1;
    if (turn.place !== undefined && this.#frozen.has(turn.place)) lease.pause('frozen');
    state.listener.onLease(lease);
  }

  /** @param places all that are frozen: no silence counts of who is there. */
  setFrozen(places: ReadonlySet<number>): void {
    this.#frozen = places;
    for (const { lease, turn } of this.#parts.turns) {
      if (turn.place === undefined) continue;
      if (places.has(turn.place)) lease?.pause('frozen');
      else lease?.resume('frozen');
    }
  }

  // What a lease tells.

  learn(lease: TurnLease, headers: HeaderReader): void {
    const { clock, counters } = this.#conditions;
    const { upstream } = lease.holder;
    const nowMs = clock.now();
    lease.grant.reservation.arrived(nowMs);
    const { bad, changed } = upstream.limits.learn(headers, nowMs);
    counters.badHeaders += bad;
    if (changed) upstream.queue.rekey();
    const told = subscriptionReading(headers, clock.wallNow());
    counters.badHeaders += told.bad;
    if (told.reading !== null) upstream.subscription.learn(told.reading);
    if (lease.grant.probes.length === 0 || !lease.isServed) return;
    // Its answer may take minutes, or never be read to its end: the others need not be turned away until then.
    for (const breaker of lease.grant.probes) breaker.ended(true);
    upstream.dispatch();
  }

  used(lease: TurnLease, before: Usage): void {
    const { inputTokens, outputTokens = 0 } = lease.toldUsage;
    lease.holder.upstream.writtenUnderWay += outputTokens - (before.outputTokens ?? 0);
    const used = { requests: 1, inputTokens: inputTokens ?? lease.turn.inputTokens, outputTokens };
    lease.grant.reservation.usedSoFar(used, this.#conditions.clock.now());
  }

  silent(lease: TurnLease, silence: Silence): void {
    this.#conditions.counters.wouldReap += 1;
    lease.holder.listener.onHung(evidenceOf(lease, silence, true), { action: 'watch' });
  }

  ended(lease: TurnLease, end: LeaseEnd): Verdict {
    const { clock, counters } = this.#conditions;
    const { turns, waiting } = this.#parts;
    const state = lease.holder;
    const { upstream, turn } = state;
    const nowMs = clock.now();
    const heldLanes = upstream.held;
    state.lease = null;
    upstream.laneHeld(state.level, -1);
    upstream.writtenUnderWay -= lease.toldUsage.outputTokens ?? 0;
    this.#settle(lease, end, nowMs);
    const answered =
      end.kind === 'ok' || (end.kind === 'error' && !end.quotaExhausted && lease.status !== null);
    // Served ones have told so with their head; what another turn has been told since is newer.
    if (!lease.isServed) for (const breaker of lease.grant.probes) breaker.ended(answered);

    const verdict = this.#verdict(lease, end, heldLanes, nowMs);
    if (verdict.action === 'retry') {
      counters.retried += 1;
      waiting.enterAfter(state, verdict.delayMs);
    } else {
      if (verdict.action === 'fail') counters.failed += 1;
      turns.over(state);
    }
    upstream.queue.used(turn.session);
    if (end.kind === 'hung') {
      counters.reaped += 1;
      const { dryRun } = this.#conditions.settings.reaper;
      state.listener.onHung(evidenceOf(lease, end.silence, dryRun), verdict);
    }
    upstream.dispatch();
    return verdict;
  }

  /** Turns what was expected of an attempt into what it was. */
  #settle(lease: TurnLease, end: LeaseEnd, nowMs: number): void {
    const { turn, grant } = lease;
    const { upstream } = lease.holder;
    const { runs, usedTokens } = this.#parts;
    const heldMs = nowMs - lease.grantedAtMs;
    const used = usedBy(lease, end, upstream.expectedOutput.value);
    grant.reservation.settle(used, nowMs);
    upstream.shares.account(turn.session, {
      laneMs: heldMs - grant.countedLaneMs,
      inputTokens: used.inputTokens - turn.inputTokens,
      outputTokens: used.outputTokens - grant.countedOutputTokens,
    });
    const tokens = used.inputTokens + used.outputTokens;
    if (tokens > 0) usedTokens.set(turn.session, (usedTokens.get(turn.session) ?? 0) + tokens);
    if (end.kind === 'hung') return;
    // Time without a response, and time for which the client kept the lane, is no service.
    runs.served(turn, Math.max(0, heldMs - lease.pausedMs));
    if (end.kind !== 'ok') return;
    upstream.retryBudget.served(heldMs, nowMs);
    upstream.expectedHoldMs.add(heldMs);
    if (lease.toldUsage.outputTokens !== undefined) upstream.expectedOutput.add(used.outputTokens);
  }

  /** @param heldLanes of the upstream, with this one. */
  #verdict(lease: TurnLease, end: LeaseEnd, heldLanes: number, nowMs: number): Verdict {
    const { counters } = this.#conditions;
    if (end.kind === 'aborted') {
      counters.aborted += 1;
      return { action: 'done' };
    }
    if (end.kind === 'ok') {
      const state = lease.holder;
      state.endsRun = end.endsRun;
      state.upstream.lanes.completed(heldLanes);
      state.upstream.unnamedRefusals = 0;
      counters.completed += 1;
      if (lease.attempt > 0) counters.recovered += 1;
      return { action: 'done' };
    }
    const { failed } = this.#parts;
    const verdict =
      end.kind === 'hung' ? failed.hung(lease, end.silence, nowMs) : failed.error(lease, end, nowMs);
    if (verdict.action !== 'retry' || !this.#conditions.closed) return verdict;
    return { action: 'fail', reason: verdict.reason, shouldRetry: true, retryAfterMs: null };
  }
}

/** What an attempt used, as far as it is known. */
function usedBy(lease: TurnLease, end: LeaseEnd, expectedOutput: number): Amounts {
  const { toldUsage, turn, contentEvents } = lease;
  // An error is not charged for; what was aborted or hung has been read by the model.
  const inputTokens = toldUsage.inputTokens ?? (end.kind === 'error' ? 0 : turn.inputTokens);
  const wrote = end.kind === 'ok' || contentEvents > 0;
  return { requests: 1, inputTokens, outputTokens: toldUsage.outputTokens ?? (wrote ? expectedOutput : 0) };
}

function evidenceOf(lease: TurnLease, silence: Silence, dryRun: boolean): HungEvidence {
  const { turn, attempt, isCommitted } = lease;
  return { ...silence, turn: turn.id, session: turn.session, attempt, committed: isCommitted, dryRun };
}
