// SPDX-License-Identifier: Apache-2.0
import { AgentGate } from './agent-gate.ts';
import { Agents } from './agents.ts';
import type { Breaker } from './breaker.ts';
import { type MutableCounters, noCounters } from './counters.ts';
import { LaneLease, type LeaseEnd, type LeaseHost } from './lease.ts';
import { type Linked, LinkedList } from './linked-list.ts';
import { Places, placeKey } from './places.ts';
import { type DisciplineMaker, LEVELS, type Level, type QueueEntry } from './queue.ts';
import type { Amounts } from './rate-limits.ts';
import { RecentMap } from './recent-map.ts';
import { refusals } from './refusals.ts';
import { afterError, afterHang, isTurnedAway, type RetryCandidate } from './retry.ts';
import { retryAdvice } from './retry-after.ts';
import { Runs } from './runs.ts';
import { defaultSettings, type SchedulerSettings } from './settings.ts';
import { Subscription } from './subscription.ts';
import { rejectionIn, subscriptionReading } from './subscription-headers.ts';
import {
  type AgentSnapshot,
  type CallsOfSession,
  type Clock,
  type Counters,
  type HeldEvidence,
  type HostPressure,
  type HungEvidence,
  type Refusal,
  type SavedState,
  type SchedulerEvents,
  type SchedulerSnapshot,
  type Silence,
  type Ticket,
  type Timer,
  TURN_CLASSES,
  type Turn,
  type TurnListener,
  type TurnScheduler,
  type TurnSnapshot,
  type UpstreamError,
  type UpstreamSnapshot,
  type Verdict,
} from './types.ts';
import { Upstream, type UpstreamKey } from './upstream.ts';

export interface SchedulerOptions {
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly settings?: SchedulerSettings;
  /** What an earlier process has saved. */
  readonly saved?: SavedState;
  /** Another order of the queue than by priority, one for each upstream. */
  readonly discipline?: DisciplineMaker;
  readonly events?: SchedulerEvents;
}

/** A turn from its submission to its end. */
interface TurnState extends Linked<TurnState> {
  readonly turn: Turn;
  readonly listener: TurnListener;
  readonly upstream: Upstream;
  readonly level: Level;
  readonly sequence: number;
  readonly submittedAtMs: number;
  /** With the time that it waited before it was submitted again. */
  readonly sinceMs: number;
  phase: 'queued' | 'gated' | 'running' | 'delayed' | 'over';
  phaseAtMs: number;
  /** Since when and how it is kept from its lane by the host alone; null: it is not. */
  held: { readonly sinceMs: number; readonly evidence: HeldEvidence } | null;
  /** Whether its answer ended its run; undefined: that is not known. */
  endsRun: boolean | undefined;
  /** Grants so far, retries after hangs and failures, retries after 429 and 529. */
  grants: number;
  retries: number;
  turnedAway: number;
  entry: QueuedTurn | null;
  lease: TurnLease | null;
  /** The longest wait in the queue, or the delay before a retry. */
  timer: Timer | null;
}

type TurnLease = LaneLease<TurnState>;

/** What is in the queues: whatever their order, they give back what was put in. */
interface QueuedTurn extends QueueEntry {
  readonly state: TurnState;
}

/** Runs that outlive a restart: as many as fit into a message with everything else, and more than a host has. */
const SAVED_RUNS = 2_000;

/** However late it is: a turn that is back in the queue, or at last has a lane, has at least so long. */
const LEAST_WAIT_MS = 1_000;

/**
 * Lanes, queue, reaper, rate limits and fairness for turns of any number of upstreams. It has neither a thread
 * nor a timer of its own but what the clock gives it: the proxy gives it the real one, `agentrm sim` its own.
 */
export class Scheduler implements TurnScheduler {
  readonly #clock: Clock;
  readonly #random: () => number;
  #settings: SchedulerSettings;
  readonly #discipline: DisciplineMaker | undefined;
  readonly #events: SchedulerEvents;
  readonly #agents: Agents;
  readonly #gate: AgentGate<QueuedTurn>;
  readonly #upstreams: RecentMap<string, Upstream>;
  readonly #states = new LinkedList<TurnState>();
  readonly #runs: Runs;
  readonly #places: Places;
  readonly #budgetUsed: RecentMap<string, number>;
  /** Turns in the queue of each session; of those that have none it may forget. */
  readonly #queuedOf: RecentMap<string, number>;
  readonly #counters: MutableCounters;
  readonly #leaseHost: LeaseHost<TurnState>;
  #queued = 0;
  #held = 0;
  #sequence = 0;
  #pressure: HostPressure = { memory: 0, poolShort: false };
  #frozen: ReadonlySet<number> = new Set();
  #closed = false;

  constructor(options: SchedulerOptions) {
    const { clock, random, settings = defaultSettings, saved, discipline, events = {} } = options;
    this.#clock = clock;
    this.#random = random;
    this.#settings = settings;
    this.#discipline = discipline;
    this.#events = events;
    this.#counters = noCounters();
    const evicted = () => {
      this.#counters.evicted += 1;
    };
    const { tables } = settings;
    this.#upstreams = new RecentMap(tables.upstreams, evicted, ({ turns }) => turns > 0);
    this.#runs = new Runs(settings.levels, tables.sessions, () => this.#count('demoted'), evicted);
    this.#places = new Places(tables.places, evicted);
    this.#budgetUsed = new RecentMap(tables.sessions, evicted);
    this.#queuedOf = new RecentMap(
      tables.sessions,
      () => {},
      (turns) => turns > 0,
    );
    this.#gate = new AgentGate(settings.agents.running, settings.levels.agingMs);
    this.#agents = new Agents({
      clock,
      settings: () => this.#settings.agents,
      dryRun: () => this.#settings.reaper.dryRun,
      capacity: tables.sessions,
      evicted,
      classOf: (session, turnClass) => events.onClass?.(session, turnClass),
      abandoned: (evidence) => {
        this.#count(evidence.dryRun ? 'wouldAbandon' : 'abandoned');
        if (!evidence.dryRun) this.#runs.forget(evidence.session);
        events.onAbandoned?.(evidence);
      },
      over: (session) => this.#leaveGate(session),
      holdsPlace: (session) => this.#gate.holds(session),
    });
    this.#leaseHost = {
      learn: (lease, headers) => {
        const { upstream } = lease.holder;
        const nowMs = clock.now();
        lease.grant.reservation.arrived(nowMs);
        const { bad, changed } = upstream.limits.learn(headers, nowMs);
        this.#counters.badHeaders += bad;
        if (changed) upstream.queue.rekey();
        const told = subscriptionReading(headers, clock.wallNow());
        this.#counters.badHeaders += told.bad;
        if (told.reading !== null) upstream.subscription.learn(told.reading);
        if (lease.grant.probes.length === 0 || !isServed(lease.status)) return;
        // Its answer may take minutes, or never be read to its end: the others need not be turned away until then.
        for (const breaker of lease.grant.probes) breaker.ended(true);
        upstream.dispatch();
      },
      used: (lease, before) => {
        const { inputTokens, outputTokens = 0 } = lease.toldUsage;
        lease.holder.upstream.writtenUnderWay += outputTokens - (before.outputTokens ?? 0);
        const used = { requests: 1, inputTokens: inputTokens ?? lease.turn.inputTokens, outputTokens };
        lease.grant.reservation.usedSoFar(used, clock.now());
      },
      ended: (lease, end) => this.#ended(lease, end),
      silent: (lease, silence) => {
        this.#count('wouldReap');
        lease.holder.listener.onHung(evidenceOf(lease, silence, true), { action: 'watch' });
      },
    };
    if (saved !== undefined) this.#restore(saved);
  }

  submit(turn: Turn, listener: TurnListener): Ticket {
    this.#count('submitted');
    const nowMs = this.#clock.now();
    const upstream = this.#upstreamOf(turn);
    const refusal = this.#refusalAtDoor(turn, upstream, nowMs);
    if (refusal !== null) {
      this.#counters.refused[refusal.code] += 1;
      listener.onRefused(refusal);
      return { turn, cancel: () => {} };
    }
    const place = this.#places.take(turn, nowMs);
    if (place !== null) this.#count('placesKept');
    const state: TurnState = {
      turn,
      listener,
      upstream,
      level: this.#runs.levelOf(turn),
      sequence: this.#sequence,
      submittedAtMs: nowMs,
      sinceMs: place?.sinceMs ?? nowMs,
      phase: 'queued',
      phaseAtMs: nowMs,
      held: null,
      endsRun: undefined,
      grants: 0,
      retries: place?.retries ?? 0,
      turnedAway: 0,
      entry: null,
      lease: null,
      timer: null,
      previous: null,
      next: null,
    };
    this.#sequence += 1;
    upstream.came(state.level, nowMs);
    upstream.turns += 1;
    this.#states.add(state);
    this.#agents.came(turn);
    this.#enqueue(state, false);
    return { turn, cancel: () => this.#leave(state, 'cancelled') };
  }

  setHostPressure(pressure: HostPressure): void {
    this.#pressure = pressure;
    for (const upstream of this.#upstreams.values()) upstream.dispatch();
  }

  setCalls(session: string, calls: CallsOfSession | null): void {
    this.#agents.setCalls(session, calls);
  }

  setFrozen(places: ReadonlySet<number>): void {
    this.#frozen = places;
    for (const { lease, turn } of this.#states) {
      if (turn.place === undefined) continue;
      if (places.has(turn.place)) lease?.pause('frozen');
      else lease?.resume('frozen');
    }
  }

  configure(settings: SchedulerSettings): void {
    this.#settings = settings;
    for (const { lanes } of this.#upstreams.values()) lanes.configure(settings.lanes);
    this.#gate.limitTo(settings.agents.running);
    // Whose run is under way need not wait for its own end.
    const kept = new Set<string>();
    for (const { phase, turn } of this.#states) if (phase === 'gated') kept.add(turn.session);
    for (const session of this.#agents.underWay()) if (!kept.has(session)) this.#gate.restore(session);
    this.#agents.configured();
    this.#openGate();
    for (const upstream of this.#upstreams.values()) upstream.dispatch();
  }

  endOwner(owner: string): number {
    const states = [...this.#states].filter(({ turn }) => turn.owner === owner);
    for (const state of states) this.#leave(state, 'owner-ended');
    return states.length;
  }

  counters(): Counters {
    return { ...this.#counters, refused: { ...this.#counters.refused } };
  }

  /** Every session that is remembered, the one that was heard of last at the end. */
  *agents(): Generator<AgentSnapshot> {
    for (const agent of this.#agents.snapshot()) {
      yield { ...agent, usedTokens: this.#budgetUsed.peek(agent.session) ?? 0 };
    }
  }

  /** @param sees whose sessions are to be seen: those upstreams, and these turns; default all */
  snapshot(sees?: (session: string) => boolean): SchedulerSnapshot {
    const nowMs = this.#clock.now();
    const byUpstream = new Map<Upstream, TurnState[]>();
    const count = { queued: 0, gated: 0, running: 0, delayed: 0, over: 0 };
    for (const state of this.#states) {
      count[state.phase] += 1;
      if (sees?.(state.turn.session) === false) continue;
      const list = byUpstream.get(state.upstream);
      if (list === undefined) byUpstream.set(state.upstream, [state]);
      else list.push(state);
    }
    const upstreams = [...this.#upstreams.values()]
      .filter((upstream) => sees === undefined || byUpstream.has(upstream) || upstream.usedBy(sees))
      .map((upstream) => this.#snapshotOf(upstream, byUpstream.get(upstream) ?? [], nowMs));
    return {
      atMs: nowMs,
      queued: this.#queued,
      running: count.running,
      delayed: count.delayed,
      gated: count.gated,
      held: this.#held,
      host: this.#pressure,
      agents: { limit: this.#gate.limit, running: this.#gate.running, waiting: this.#gate.waiting },
      upstreams,
    };
  }

  save(): SavedState {
    const nowMs = this.#clock.now();
    const wallMs = this.#clock.wallNow();
    const wall = (ms: number) => wallMs + ms - nowMs;
    const places = new Map<string, { sinceMs: number; retries: number }>(this.#places.live(nowMs));
    for (const { turn, sinceMs, retries, phase } of this.#states) {
      // What runs is sent again by its client: it had its turn, and keeps its retries used.
      if (phase !== 'over') places.set(placeKey(turn.credential, turn.bodyHash), { sinceMs, retries });
    }
    return {
      version: 1,
      savedAtWallMs: wallMs,
      budgets: [...this.#budgetUsed.entries()].map(([session, usedTokens]) => ({ session, usedTokens })),
      places: [...places].map(([key, { sinceMs, retries }]) => {
        const [credential = '', bodyHash = ''] = key.split('\n');
        return { credential, bodyHash, sinceWallMs: wall(sinceMs), attempts: retries };
      }),
      runs: this.#agents.save(SAVED_RUNS).map((run) => {
        const standing = this.#runs.standingOf(run.session, run.agent);
        return { ...run, level: standing?.level ?? run.class, usedMs: standing?.usedMs ?? 0 };
      }),
      upstreams: [...this.#upstreams.values()].map((upstream) => ({
        ...upstream.key,
        laneLimit: upstream.lanes.limit,
        expectedOutputTokens: upstream.expectedOutput.value,
        pausedUntilWallMs: upstream.pausedUntilMs > nowMs ? wall(upstream.pausedUntilMs) : null,
        buckets: upstream.limits
          .snapshot(nowMs)
          .map(({ resource, limitPerMin, available }) => ({ resource, limitPerMin, available })),
      })),
    };
  }

  close(): void {
    this.#closed = true;
    this.#agents.close();
    for (const state of [...this.#states]) if (state.phase !== 'running') this.#leave(state, 'closed');
    for (const upstream of this.#upstreams.values()) upstream.stop();
  }

  // Into the queue and out of it.

  #enqueue(state: TurnState, retry: boolean): void {
    const { turn, level, sinceMs, sequence, upstream } = state;
    const { session } = turn;
    const entry: QueuedTurn = { turn, level, sinceMs, sequence, retry, state };
    state.entry = entry;
    this.#queued += 1;
    this.#queuedOf.set(session, (this.#queuedOf.peek(session) ?? 0) + 1);
    if (this.#gate.enter(session)) {
      this.#phase(state, 'queued');
      upstream.queue.push(entry);
      upstream.dispatch();
    } else {
      this.#phase(state, 'gated');
      this.#gate.wait(entry);
    }
    const { maxWaitMs } = this.#settings.queue;
    if (state.entry !== entry || maxWaitMs === Number.POSITIVE_INFINITY) return;
    const leftMs = state.submittedAtMs + maxWaitMs - this.#clock.now();
    state.timer = this.#clock.setTimer(Math.max(leftMs, LEAST_WAIT_MS), () => this.#waitExpired(state));
  }

  /** Out of the queue, to a lane or away. */
  #dequeued(state: TurnState): void {
    state.timer?.cancel();
    state.timer = null;
    state.entry = null;
    this.#heldEnd(state);
    this.#queued -= 1;
    const { session } = state.turn;
    this.#queuedOf.set(session, (this.#queuedOf.peek(session) ?? 1) - 1);
  }

  /** It has no turn and no open run any more: another agent may run. */
  #leaveGate(session: string): void {
    if (!this.#gate.holds(session)) return;
    this.#gate.leave(session);
    if (!this.#closed) this.#openGate();
  }

  /** Lets in whom there is a place for. */
  #openGate(): void {
    for (;;) {
      const entries = this.#gate.next(this.#clock.now());
      if (entries.length === 0) return;
      for (const entry of entries) {
        const { state } = entry;
        this.#phase(state, 'queued');
        state.upstream.queue.push(entry);
      }
      for (const { state } of entries) state.upstream.dispatch();
    }
  }

  #holds(state: TurnState): void {
    if (state.held !== null) return;
    const { id, session, class: turnClass } = state.turn;
    const evidence: HeldEvidence = { turn: id, session, class: turnClass, host: this.#pressure };
    state.held = { sinceMs: this.#clock.now(), evidence };
    this.#held += 1;
    this.#count('held');
    this.#events.onHeld?.(evidence);
  }

  #heldEnd(state: TurnState): void {
    if (state.held === null) return;
    const { sinceMs, evidence } = state.held;
    state.held = null;
    this.#held -= 1;
    this.#events.onHeldEnd?.(evidence, this.#clock.now() - sinceMs);
  }

  #grant(upstream: Upstream, entry: QueueEntry, aged: boolean): void {
    const { state } = entry as QueuedTurn;
    const { turn } = state;
    const nowMs = this.#clock.now();
    const waitedMs = nowMs - state.phaseAtMs;
    this.#dequeued(state);
    const expected = upstream.expected(entry);
    const countedLaneMs = upstream.expectedHoldMs.value;
    upstream.account(turn.session, 'laneMs', countedLaneMs);
    for (const resource of ['requests', 'inputTokens', 'outputTokens'] as const) {
      upstream.account(turn.session, resource, expected[resource]);
    }
    upstream.queue.used(turn.session);
    const lease = new LaneLease(
      this.#clock,
      this.#settings.reaper,
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
      this.#leaseHost,
    );
    state.grants += 1;
    state.lease = lease;
    upstream.laneHeld(state.level, 1);
    this.#phase(state, 'running');
    this.#count('dispatched');
    if (aged) this.#count('aged');
    if (turn.place !== undefined && this.#frozen.has(turn.place)) lease.pause('frozen');
    state.listener.onLease(lease);
  }

  /** The client or the owner has gone, or the scheduler goes. */
  #leave(state: TurnState, code: 'cancelled' | 'owner-ended' | 'closed'): void {
    if (state.phase === 'over') return;
    if (state.lease !== null) {
      state.lease.end({ kind: 'aborted' });
      return;
    }
    this.#refuse(state, refusals[code]());
  }

  #waitExpired(state: TurnState): void {
    const { placeKeptMs, comeBackMs } = this.#settings.queue;
    state.timer = null;
    this.#places.keep(state.turn, state, this.#clock.now() + placeKeptMs);
    this.#refuse(state, refusals['wait-expired'](comeBackMs));
  }

  /** A turn without a lane is over. */
  #refuse(state: TurnState, refusal: Refusal): void {
    const { entry, upstream } = state;
    if (entry !== null) {
      upstream.queue.remove(entry);
      this.#gate.remove(entry);
      this.#dequeued(state);
    }
    this.#over(state);
    this.#counters.refused[refusal.code] += 1;
    state.listener.onRefused(refusal);
    // It may have been the one in whose way the limits were.
    upstream.dispatch();
  }

  #refusalAtDoor(turn: Turn, upstream: Upstream, nowMs: number): Refusal | null {
    if (this.#closed) return refusals.closed();
    const { sessionTokens } = this.#settings.limits;
    if (sessionTokens !== null && (this.#budgetUsed.peek(turn.session) ?? 0) >= sessionTokens) {
      return refusals['session-budget']();
    }
    const breaker = upstream.closedBy(nowMs);
    if (breaker?.state(nowMs) === 'open') return breaker.refusal(nowMs);
    const { maxTurns, maxTurnsOfSession } = this.#settings.queue;
    if (this.#queued >= maxTurns || (this.#queuedOf.peek(turn.session) ?? 0) >= maxTurnsOfSession) {
      return refusals['queue-full'](this.#settings.queue.comeBackMs);
    }
    return null;
  }

  // The end of an attempt.

  #ended(lease: TurnLease, end: LeaseEnd): Verdict {
    const state = lease.holder;
    const { upstream, turn } = state;
    const nowMs = this.#clock.now();
    const heldLanes = upstream.held;
    state.lease = null;
    upstream.laneHeld(state.level, -1);
    upstream.writtenUnderWay -= lease.toldUsage.outputTokens ?? 0;
    this.#settle(upstream, lease, end, nowMs);
    const answered =
      end.kind === 'ok' || (end.kind === 'error' && !end.quotaExhausted && lease.status !== null);
    // Served ones have told so with their head; what another turn has been told since is newer.
    if (!isServed(lease.status)) for (const breaker of lease.grant.probes) breaker.ended(answered);

    let verdict: Verdict = { action: 'done' };
    if (end.kind === 'ok') {
      state.endsRun = end.endsRun;
      upstream.lanes.completed(heldLanes);
      upstream.unnamedRefusals = 0;
      this.#count('completed');
      if (lease.attempt > 0) this.#count('recovered');
    } else if (end.kind === 'aborted') {
      this.#count('aborted');
    } else if (end.kind === 'hung') {
      verdict = this.#afterHang(state, lease, end.silence, nowMs);
    } else {
      verdict = this.#afterError(state, lease, end, nowMs);
    }
    if (verdict.action === 'retry' && this.#closed) {
      const { reason } = verdict;
      verdict = { action: 'fail', reason, shouldRetry: true, retryAfterMs: null };
    }
    if (verdict.action === 'retry') {
      this.#count('retried');
      this.#delay(state, verdict.delayMs);
    } else {
      if (verdict.action === 'fail') this.#count('failed');
      this.#over(state);
    }
    upstream.queue.used(turn.session);
    if (end.kind === 'hung') {
      this.#count('reaped');
      state.listener.onHung(evidenceOf(lease, end.silence, this.#settings.reaper.dryRun), verdict);
    }
    upstream.dispatch();
    return verdict;
  }

  /** Turns what was expected of an attempt into what it was. */
  #settle(upstream: Upstream, lease: TurnLease, end: LeaseEnd, nowMs: number): void {
    const { turn, grant } = lease;
    const heldMs = nowMs - lease.grantedAtMs;
    const used = usedBy(lease, end, upstream.expectedOutput.value);
    grant.reservation.settle(used, nowMs);
    upstream.account(turn.session, 'laneMs', heldMs - grant.countedLaneMs);
    upstream.account(turn.session, 'inputTokens', used.inputTokens - turn.inputTokens);
    upstream.account(turn.session, 'outputTokens', used.outputTokens - grant.countedOutputTokens);
    const tokens = used.inputTokens + used.outputTokens;
    if (tokens > 0) {
      this.#budgetUsed.set(turn.session, (this.#budgetUsed.get(turn.session) ?? 0) + tokens);
    }
    if (end.kind === 'hung') return;
    // Time without a response, and time for which the client kept the lane, is no service.
    this.#runs.served(turn, Math.max(0, heldMs - lease.pausedMs));
    if (end.kind !== 'ok') return;
    upstream.retryBudget.served(heldMs, nowMs);
    upstream.expectedHoldMs.add(heldMs);
    if (lease.toldUsage.outputTokens !== undefined) upstream.expectedOutput.add(used.outputTokens);
  }

  #afterHang(state: TurnState, lease: TurnLease, { cause }: Silence, nowMs: number): Verdict {
    const { retry } = this.#settings;
    const { retryBudget, queue } = state.upstream;
    if (lease.attempt > 0) retryBudget.lost(nowMs - lease.grantedAtMs, nowMs);
    // A lane that nobody waits for is taken from nobody.
    const affordable = queue.size === 0 || retryBudget.allows(nowMs);
    const candidate = candidateOf(state, lease);
    const verdict = afterHang(candidate, cause, affordable, nowMs, this.#random(), retry);
    if (verdict.action === 'retry') state.retries += 1;
    else this.#remember(state, verdict, nowMs);
    return verdict;
  }

  #afterError(state: TurnState, lease: TurnLease, error: UpstreamError, nowMs: number): Verdict {
    const { upstream } = state;
    const { limits, retry } = this.#settings;
    const { status, quotaExhausted = false, headers } = error;
    const wallNowMs = this.#clock.wallNow();
    const { reading } = subscriptionReading(headers ?? (() => null), wallNowMs);
    // A rejection that was served all the same, for money beyond the subscription, is none: not even where an error
    // event, with a status of its own, then ends what was served.
    const rejected = status === 429 && !isServed(lease.status);
    const rejection = rejected ? rejectionIn(reading, wallNowMs) : null;
    const advised = retryAdvice(headers ?? (() => null), wallNowMs);
    const advice =
      rejection === null ? advised : { ...advised, afterMs: Math.max(rejection.forMs, advised.afterMs ?? 0) };
    const turnedAway = isTurnedAway(status);
    if (turnedAway) {
      this.#count(status === 429 ? 'rateLimited' : 'overloaded');
      let pauseMs = advice.afterMs;
      if (pauseMs === null) {
        pauseMs = Math.min(limits.pauseMs * 2 ** upstream.unnamedRefusals, limits.pauseUnnamedMostMs);
        // Those that were under way together are turned away together.
        if (nowMs >= upstream.pausedUntilMs) upstream.unnamedRefusals += 1;
      }
      // Overload passes, and no answer knows when: only of an account's limits it can be known for longer.
      if (status === 529) pauseMs = Math.min(pauseMs, limits.pauseMostMs);
      // An account that is used up is no upstream that bears less.
      if (rejection === null) upstream.lanes.turnedAway(nowMs, pauseMs);
      if (rejection !== null && reading !== null && pauseMs > limits.pauseMostMs) {
        const breaker = rejection.account ? upstream.subscription.breaker : upstream.breaker;
        this.#open(breaker, pauseMs, (afterMs) => refusals.subscription(afterMs, reading.headers));
      } else if (pauseMs > limits.pauseMostMs) this.#open(upstream.breaker, pauseMs, refusals.quota);
      else upstream.pausedUntilMs = Math.max(upstream.pausedUntilMs, nowMs + pauseMs);
    }
    if (quotaExhausted) this.#open(upstream.breaker, advice.afterMs ?? limits.quotaPauseMs, refusals.quota);
    const told = { status, advice, quotaExhausted };
    const verdict = afterError(candidateOf(state, lease), told, nowMs, this.#random(), retry);
    if (verdict.action !== 'retry') this.#remember(state, verdict, nowMs);
    else if (turnedAway) state.turnedAway += 1;
    else state.retries += 1;
    return verdict;
  }

  /**
   * Nothing is served for now, and whoever waits is told rather than kept.
   * @param refusal what they are told, by when they may come back.
   */
  #open(breaker: Breaker, forMs: number, refusal: (afterMs: number) => Refusal): void {
    const nowMs = this.#clock.now();
    const untilMs = nowMs + forMs;
    breaker.opened(nowMs + Math.min(forMs, this.#settings.limits.tryMs), (leftMs) =>
      // Once that is over and a turn tries, only the breaker knows when to come back.
      refusal(Math.max(leftMs, untilMs - this.#clock.now())),
    );
    for (const state of [...this.#states]) {
      if (state.upstream.closedBy(nowMs) === breaker && state.phase !== 'running') {
        this.#refuse(state, breaker.refusal(nowMs));
      }
    }
  }

  /** A request whose retries are used up gets no new ones when its client sends it again. */
  #remember(state: TurnState, verdict: Verdict, nowMs: number): void {
    if (verdict.action !== 'fail' || state.retries === 0) return;
    const { retries, turn } = state;
    this.#places.keep(turn, { sinceMs: nowMs, retries }, nowMs + this.#settings.retry.rememberMs);
  }

  #delay(state: TurnState, delayMs: number): void {
    this.#phase(state, 'delayed');
    state.timer = this.#clock.setTimer(delayMs, () => {
      state.timer = null;
      this.#enqueue(state, true);
    });
  }

  #over(state: TurnState): void {
    state.timer?.cancel();
    state.timer = null;
    const from = state.phase === 'running' ? 'running' : 'waiting';
    this.#phase(state, 'over');
    state.upstream.turns -= 1;
    this.#states.remove(state);
    this.#agents.left(state.turn, from, state.endsRun);
  }

  #phase(state: TurnState, phase: TurnState['phase']): void {
    if (phase !== 'over' && (phase === 'running') !== (state.phase === 'running')) {
      this.#agents.moved(state.turn, phase === 'running' ? 'running' : 'waiting');
    }
    state.phase = phase;
    state.phaseAtMs = this.#clock.now();
  }

  #count(counter: Exclude<keyof Counters, 'refused'>): void {
    this.#counters[counter] += 1;
  }

  // Upstreams.

  #upstreamOf({ provider, credential, modelClass }: UpstreamKey): Upstream {
    const name = `${provider}\n${credential}\n${modelClass}`;
    const known = this.#upstreams.get(name);
    if (known !== undefined) return known;
    const upstream: Upstream = new Upstream(
      { provider, credential, modelClass },
      {
        clock: this.#clock,
        settings: () => this.#settings,
        pressure: () => this.#pressure,
        grant: (entry, aged) => this.#grant(upstream, entry, aged),
        held: (entry) => this.#holds((entry as QueuedTurn).state),
        evicted: () => this.#count('evicted'),
        subscription: this.#subscriptionOf(provider, credential),
        ...(this.#discipline === undefined ? {} : { discipline: this.#discipline }),
      },
    );
    this.#upstreams.set(name, upstream);
    return upstream;
  }

  /** The one of the account's other upstreams, if it has any. */
  #subscriptionOf(provider: string, credential: string): Subscription {
    for (const { key, subscription } of this.#upstreams.values()) {
      if (key.provider === provider && key.credential === credential) return subscription;
    }
    return new Subscription();
  }

  #restore(saved: SavedState): void {
    const nowMs = this.#clock.now();
    const local = (wallMs: number) => nowMs + Math.min(0, wallMs - this.#clock.wallNow());
    for (const { session, usedTokens } of saved.budgets) this.#budgetUsed.set(session, usedTokens);
    for (const { credential, bodyHash, sinceWallMs, attempts } of saved.places) {
      const place = { sinceMs: local(sinceWallMs), retries: attempts };
      this.#places.keepKey(placeKey(credential, bodyHash), place, nowMs + this.#settings.queue.placeKeptMs);
    }
    const runs = saved.runs ?? [];
    for (const { session, agent, level, usedMs, holdsPlace } of runs) {
      this.#runs.restore(session, agent, level, usedMs);
      if (holdsPlace) this.#gate.restore(session);
    }
    this.#agents.restore(runs);
    for (const told of saved.upstreams) {
      const upstream = this.#upstreamOf(told);
      upstream.lanes.restore(told.laneLimit);
      upstream.expectedOutput.restore(told.expectedOutputTokens);
      if (told.pausedUntilWallMs !== null) {
        const leftMs = told.pausedUntilWallMs - this.#clock.wallNow();
        // The time of day may have been set meanwhile.
        upstream.pausedUntilMs = nowMs + Math.min(leftMs, this.#settings.limits.pauseMostMs);
      }
      for (const { resource, limitPerMin, available } of told.buckets) {
        if (limitPerMin === null || available === null) continue;
        upstream.limits.restore(resource, limitPerMin, available, nowMs);
      }
    }
  }

  #snapshotOf(upstream: Upstream, states: readonly TurnState[], nowMs: number): UpstreamSnapshot {
    const fixed = this.#settings.lanes.fixed !== null;
    return {
      ...upstream.key,
      lanes: { held: upstream.held, limit: upstream.lanes.limit, fixed },
      levels: LEVELS.map((level) => {
        const queued = states.filter((state) => state.level === level && state.phase === 'queued');
        const oldestMs = Math.min(nowMs, ...queued.map(({ sinceMs }) => sinceMs));
        return {
          level: TURN_CLASSES[level],
          queued: queued.length,
          running: upstream.heldAtLevel(level),
          oldestWaitMs: nowMs - oldestMs,
        };
      }),
      buckets: upstream.limits.snapshot(nowMs),
      pausedUntilMs: upstream.pausedUntilMs > nowMs ? upstream.pausedUntilMs : null,
      breaker: upstream.closedBy(nowMs)?.state(nowMs) ?? 'closed',
      subscription: upstream.subscription.snapshot(this.#clock.wallNow()),
      expectedOutputTokens: upstream.expectedOutput.value,
      turns: states.map((state) => turnSnapshot(state, nowMs)),
    };
  }
}

/** By the status of an answer's head; null: none has come. */
function isServed(status: number | null): boolean {
  return status !== null && status < 400;
}

/** What an attempt used, as far as it is known. */
function usedBy(lease: TurnLease, end: LeaseEnd, expectedOutput: number): Amounts {
  const { toldUsage, turn, contentEvents } = lease;
  // An error is not charged for; what was aborted or hung has been read by the model.
  const inputTokens = toldUsage.inputTokens ?? (end.kind === 'error' ? 0 : turn.inputTokens);
  const wrote = end.kind === 'ok' || contentEvents > 0;
  return { requests: 1, inputTokens, outputTokens: toldUsage.outputTokens ?? (wrote ? expectedOutput : 0) };
}

function candidateOf(state: TurnState, lease: TurnLease): RetryCandidate {
  return {
    retryable: state.turn.retryable,
    committed: lease.isCommitted,
    retries: state.retries,
    turnedAway: state.turnedAway,
    attempt: lease.attempt,
    submittedAtMs: state.submittedAtMs,
  };
}

function evidenceOf(lease: TurnLease, silence: Silence, dryRun: boolean): HungEvidence {
  const { turn, attempt, isCommitted } = lease;
  return { ...silence, turn: turn.id, session: turn.session, attempt, committed: isCommitted, dryRun };
}

function turnSnapshot(state: TurnState, nowMs: number): TurnSnapshot {
  const { turn, level, phase, phaseAtMs, grants } = state;
  return {
    turn: turn.id,
    session: turn.session,
    agent: turn.agent ?? null,
    class: turn.class,
    level: TURN_CLASSES[level],
    state: phase === 'over' ? 'queued' : phase,
    attempt: phase === 'running' ? grants - 1 : grants,
    sinceMs: nowMs - phaseAtMs,
  };
}
