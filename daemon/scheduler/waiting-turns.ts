// SPDX-License-Identifier: Apache-2.0
import { AgentGate } from './agent-gate.ts';
import type { Conditions } from './conditions.ts';
import type { HeldEvidence } from './events.ts';
import type { LiveTurns, QueuedTurn, TurnState } from './live-turns.ts';
import type { Places } from './places.ts';
import { RecentMap } from './recent-map.ts';
import type { Refusal } from './refusals.ts';
import { refusals } from './refusals.ts';
import type { AgentCounts } from './snapshot.ts';

/** However late it is: a turn that is back in the queue, or at last has a lane, has at least so long. */
export const LEAST_WAIT_MS = 1_000;

/**
 * Turns without a lane, from when they come until they get one or are refused: before the gate of the running agents,
 * in the queue of their upstream, or waiting out the delay before a retry. Who of a queue goes next is its upstream's.
 */
export class WaitingTurns {
  readonly #conditions: Readonly<Conditions>;
  readonly #turns: LiveTurns;
  readonly #places: Places;
  readonly #gate: AgentGate<QueuedTurn>;
  /** Turns in the queue of each session; of those that have none it may forget. */
  readonly #queuedOf: RecentMap<string, number>;
  #queued = 0;
  #held = 0;

  /** @param places keeps that of who has waited too long. */
  constructor(conditions: Readonly<Conditions>, turns: LiveTurns, places: Places) {
    const { agents, levels, tables } = conditions.settings;
    this.#conditions = conditions;
    this.#turns = turns;
    this.#places = places;
    this.#gate = new AgentGate(agents.running, levels.agingMs);
    this.#queuedOf = new RecentMap(
      tables.sessions,
      () => {},
      (queued) => queued > 0,
    );
  }

  /** Before the gate and behind it. */
  get queued(): number {
    return this.#queued;
  }

  /** Of the queued, those that would have a lane but for the host's memory. */
  get held(): number {
    return this.#held;
  }

  /** Whether there is no room for another turn, or for none of this session. */
  isFull(session: string): boolean {
    const { maxTurns, maxTurnsOfSession } = this.#conditions.settings.queue;
    return this.#queued >= maxTurns || (this.#queuedOf.peek(session) ?? 0) >= maxTurnsOfSession;
  }

  /** Into the queue, and on to a lane if there is a free one. @param retry it had a lane already. */
  enter(state: TurnState, retry: boolean): void {
    const { turn, level, sinceMs, sequence, upstream } = state;
    const { session } = turn;
    const entry: QueuedTurn = { turn, level, sinceMs, sequence, retry, state };
    state.entry = entry;
    this.#queued += 1;
    this.#queuedOf.set(session, (this.#queuedOf.peek(session) ?? 0) + 1);
    if (this.#gate.enter(session)) {
      this.#turns.moved(state, 'queued');
      upstream.queue.push(entry);
      upstream.dispatch();
    } else {
      this.#turns.moved(state, 'gated');
      this.#gate.wait(entry);
    }
    const { clock, settings } = this.#conditions;
    const { maxWaitMs } = settings.queue;
    // It may have its lane by now, or be over.
    if (state.entry !== entry || maxWaitMs === Number.POSITIVE_INFINITY) return;
    const leftMs = state.submittedAtMs + maxWaitMs - clock.now();
    state.timer = clock.setTimer(Math.max(leftMs, LEAST_WAIT_MS), () => this.#expired(state));
  }

  /** Into the queue again after a delay. */
  enterAfter(state: TurnState, delayMs: number): void {
    this.#turns.moved(state, 'delayed');
    state.timer = this.#conditions.clock.setTimer(delayMs, () => {
      state.timer = null;
      this.enter(state, true);
    });
  }

  /** Out of the queue: to a lane, or away. The queue itself has let go of it. */
  left(state: TurnState): void {
    state.timer?.cancel();
    state.timer = null;
    state.entry = null;
    this.#holdEnded(state);
    this.#queued -= 1;
    const { session } = state.turn;
    this.#queuedOf.set(session, (this.#queuedOf.peek(session) ?? 1) - 1);
  }

  /** A turn without a lane is over. */
  refuse(state: TurnState, refusal: Refusal): void {
    const { entry, upstream } = state;
    if (entry !== null) {
      upstream.queue.remove(entry);
      this.#gate.remove(entry);
      this.left(state);
    }
    this.#turns.over(state);
    this.#conditions.counters.refused[refusal.code] += 1;
    state.listener.onRefused(refusal);
    // It may have been the one in whose way the limits were.
    upstream.dispatch();
  }

  #expired(state: TurnState): void {
    const { clock, settings } = this.#conditions;
    const { placeKeptMs, comeBackMs } = settings.queue;
    state.timer = null;
    this.#places.keep(state.turn, state, clock.now() + placeKeptMs);
    this.refuse(state, refusals['wait-expired'](comeBackMs));
  }

  // Turns that the host's memory keeps waiting.

  /** A turn would have its lane but for that. May be told again. */
  hold(state: TurnState): void {
    if (state.held !== null) return;
    const { clock, counters, events, pressure } = this.#conditions;
    const { id, session, class: turnClass } = state.turn;
    const evidence: HeldEvidence = { turn: id, session, class: turnClass, host: pressure };
    state.held = { sinceMs: clock.now(), evidence };
    this.#held += 1;
    counters.held += 1;
    events.onHeld?.(evidence);
  }

  #holdEnded(state: TurnState): void {
    if (state.held === null) return;
    const { clock, events } = this.#conditions;
    const { sinceMs, evidence } = state.held;
    state.held = null;
    this.#held -= 1;
    events.onHeldEnd?.(evidence, clock.now() - sinceMs);
  }

  // The gate of the running agents.

  /** How many of the running agents there may be, are, and wait. */
  agentCounts(): AgentCounts {
    const { limit, running, waiting } = this.#gate;
    return { limit, running, waiting };
  }

  /** Whether a session is one of the running agents, if those are limited. */
  holdsPlace(session: string): boolean {
    return this.#gate.holds(session);
  }

  /** A session that was one of the running agents before a restart is one again. */
  restorePlace(session: string): void {
    this.#gate.restore(session);
  }

  /**
   * Other settings are in force. {@link letIn} those for whom there is room then.
   * @param underWay sessions with a turn or an open run.
   */
  configured(underWay: Iterable<string>): void {
    this.#gate.limitTo(this.#conditions.settings.agents.running);
    // Whose run is under way need not wait for its own end.
    const kept = new Set<string>();
    for (const { phase, turn } of this.#turns) if (phase === 'gated') kept.add(turn.session);
    for (const session of underWay) if (!kept.has(session)) this.#gate.restore(session);
  }

  /** A session has neither a turn nor an open run any more: another agent may run. */
  agentOver(session: string): void {
    if (!this.#gate.holds(session)) return;
    this.#gate.leave(session);
    if (!this.#conditions.closed) this.letIn();
  }

  /** Lets those into their queues for whom there is a place. */
  letIn(): void {
    for (;;) {
      const entries = this.#gate.next(this.#conditions.clock.now());
      if (entries.length === 0) return;
      for (const entry of entries) {
        const { state } = entry;
        this.#turns.moved(state, 'queued');
        state.upstream.queue.push(entry);
      }
      for (const { state } of entries) state.upstream.dispatch();
    }
  }
}
