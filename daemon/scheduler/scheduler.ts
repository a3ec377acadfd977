// SPDX-License-Identifier: Apache-2.0
import { Agents } from './agents.ts';
import type { Clock } from './clock.ts';
import type { Conditions } from './conditions.ts';
import type { Counters } from './counters.ts';
import { noCounters } from './counters.ts';
import type { SchedulerEvents } from './events.ts';
import { FailedAttempts } from './failed-attempts.ts';
import { Leases } from './leases.ts';
import { LiveTurns, type TurnState } from './live-turns.ts';
import { Places } from './places.ts';
import type { DisciplineMaker } from './queue.ts';
import { RecentMap } from './recent-map.ts';
import type { Refusal } from './refusals.ts';
import { refusals } from './refusals.ts';
import { Runs } from './runs.ts';
import type { SavedState } from './saved-state.ts';
import { restore, save } from './saved-state.ts';
import { defaultSettings, type SchedulerSettings } from './settings.ts';
import type { AgentSnapshot, SchedulerSnapshot } from './snapshot.ts';
import { snapshotOf } from './snapshot.ts';
import type { CallsOfSession, HostPressure, Ticket, Turn, TurnListener, TurnScheduler } from './types.ts';
import type { Upstream } from './upstream.ts';
import { Upstreams } from './upstreams.ts';
import { WaitingTurns } from './waiting-turns.ts';

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

/**
 * Lanes, queue, reaper, rate limits and fairness for turns of any number of upstreams. It has neither a thread
 * nor a timer of its own but what the clock gives it: the proxy gives it the real one, `agentrm sim` its own.
 *
 * What comes from outside comes in here; each part looks after one thing.
 */
export class Scheduler implements TurnScheduler {
  readonly #conditions: Conditions;
  readonly #upstreams: Upstreams;
  readonly #turns: LiveTurns;
  readonly #waiting: WaitingTurns;
  readonly #leases: Leases;
  readonly #agents: Agents;
  readonly #runs: Runs;
  readonly #places: Places;
  /** Tokens of each session, for its budget. */
  readonly #usedTokens: RecentMap<string, number>;

  constructor(options: SchedulerOptions) {
    const { clock, random, settings = defaultSettings, saved, discipline, events = {} } = options;
    const counters = noCounters();
    const pressure: HostPressure = { memory: 0, poolShort: false };
    const conditions: Conditions = { clock, random, events, counters, settings, pressure, closed: false };
    const evicted = () => {
      counters.evicted += 1;
    };
    const demoted = () => {
      counters.demoted += 1;
    };
    const { levels, tables } = settings;
    this.#conditions = conditions;
    this.#runs = new Runs(levels, tables.sessions, demoted, evicted);
    this.#places = new Places(tables.places, evicted);
    this.#usedTokens = new RecentMap(tables.sessions, evicted);
    this.#agents = new Agents({
      clock,
      settings: () => conditions.settings.agents,
      dryRun: () => conditions.settings.reaper.dryRun,
      capacity: tables.sessions,
      evicted,
      classOf: (session, turnClass) => events.onClass?.(session, turnClass),
      abandoned: (evidence) => {
        counters[evidence.dryRun ? 'wouldAbandon' : 'abandoned'] += 1;
        if (!evidence.dryRun) this.#runs.forget(evidence.session);
        events.onAbandoned?.(evidence);
      },
      over: (session) => this.#waiting.agentOver(session),
      holdsPlace: (session) => this.#waiting.holdsPlace(session),
    });
    this.#turns = new LiveTurns(clock, this.#agents);
    this.#waiting = new WaitingTurns(conditions, this.#turns, this.#places);
    this.#leases = new Leases(conditions, {
      turns: this.#turns,
      waiting: this.#waiting,
      failed: new FailedAttempts(conditions, this.#turns, this.#waiting, this.#places),
      runs: this.#runs,
      usedTokens: this.#usedTokens,
    });
    this.#upstreams = new Upstreams(conditions, {
      grant: (state, aged) => this.#leases.grant(state, aged),
      held: (state) => this.#waiting.hold(state),
      evicted,
      discipline,
    });
    if (saved !== undefined) restore(this.#parts(), conditions, saved);
  }

  submit(turn: Turn, listener: TurnListener): Ticket {
    const { clock, counters } = this.#conditions;
    counters.submitted += 1;
    const nowMs = clock.now();
    const upstream = this.#upstreams.of(turn);
    const refusal = this.#refusalAtDoor(turn, upstream, nowMs);
    if (refusal !== null) {
      counters.refused[refusal.code] += 1;
      listener.onRefused(refusal);
      return { turn, cancel: () => {} };
    }
    const place = this.#places.take(turn, nowMs);
    if (place !== null) counters.placesKept += 1;
    const level = this.#runs.levelOf(turn);
    const state = this.#turns.add({ turn, listener, upstream, level, place }, nowMs);
    this.#waiting.enter(state, false);
    return { turn, cancel: () => this.#leave(state, 'cancelled') };
  }

  setHostPressure(pressure: HostPressure): void {
    this.#conditions.pressure = pressure;
    this.#upstreams.dispatch();
  }

  setCalls(session: string, calls: CallsOfSession | null): void {
    this.#agents.setCalls(session, calls);
  }

  setFrozen(places: ReadonlySet<number>): void {
    this.#leases.setFrozen(places);
  }

  configure(settings: SchedulerSettings): void {
    this.#conditions.settings = settings;
    for (const { lanes } of this.#upstreams.values()) lanes.configure(settings.lanes);
    this.#waiting.configured(this.#agents.underWay());
    this.#agents.configured();
    this.#waiting.letIn();
    this.#upstreams.dispatch();
  }

  endOwner(owner: string): number {
    const states = [...this.#turns].filter(({ turn }) => turn.owner === owner);
    for (const state of states) this.#leave(state, 'owner-ended');
    return states.length;
  }

  counters(): Counters {
    const { counters } = this.#conditions;
    return { ...counters, refused: { ...counters.refused } };
  }

  /** Every session that is remembered, the one that was heard of last at the end. */
  *agents(): Generator<AgentSnapshot> {
    for (const agent of this.#agents.snapshot()) {
      yield { ...agent, usedTokens: this.#usedTokens.peek(agent.session) ?? 0 };
    }
  }

  /** @param sees whose sessions are to be seen: those upstreams, and these turns; default all */
  snapshot(sees?: (session: string) => boolean): SchedulerSnapshot {
    return snapshotOf(this.#parts(), this.#conditions, sees);
  }

  save(): SavedState {
    return save(this.#parts(), this.#conditions);
  }

  close(): void {
    this.#conditions.closed = true;
    this.#agents.close();
    for (const state of [...this.#turns]) if (state.phase !== 'running') this.#leave(state, 'closed');
    for (const upstream of this.#upstreams.values()) upstream.stop();
  }

  #refusalAtDoor(turn: Turn, upstream: Upstream, nowMs: number): Refusal | null {
    const { settings, closed } = this.#conditions;
    if (closed) return refusals.closed();
    const { sessionTokens } = settings.limits;
    if (sessionTokens !== null && (this.#usedTokens.peek(turn.session) ?? 0) >= sessionTokens) {
      return refusals['session-budget']();
    }
    const breaker = upstream.closedBy(nowMs);
    if (breaker?.state(nowMs) === 'open') return breaker.refusal(nowMs);
    return this.#waiting.isFull(turn.session) ? refusals['queue-full'](settings.queue.comeBackMs) : null;
  }

  /** The client or the owner has gone, or the scheduler goes. */
  #leave(state: TurnState, code: 'cancelled' | 'owner-ended' | 'closed'): void {
    if (state.phase === 'over') return;
    if (state.lease !== null) state.lease.end({ kind: 'aborted' });
    else this.#waiting.refuse(state, refusals[code]());
  }

  /** What is looked at for a picture, and saved. */
  #parts() {
    return {
      upstreams: this.#upstreams,
      turns: this.#turns,
      waiting: this.#waiting,
      agents: this.#agents,
      runs: this.#runs,
      places: this.#places,
      usedTokens: this.#usedTokens,
    };
  }
}
