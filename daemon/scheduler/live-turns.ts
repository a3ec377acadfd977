// SPDX-License-Identifier: Apache-2.0
import type { Agents } from './agents.ts';
import type { Clock, Timer } from './clock.ts';
import type { HeldEvidence } from './events.ts';
import type { LaneLease } from './lease.ts';
import { type Linked, LinkedList } from './linked-list.ts';
import type { Place } from './places.ts';
import type { Level, QueueEntry } from './queue.ts';
import type { Turn, TurnListener } from './types.ts';
import type { Upstream } from './upstream.ts';

/** A turn from its submission to its end. */
export interface TurnState extends Linked<TurnState> {
  readonly turn: Turn;
  readonly listener: TurnListener;
  readonly upstream: Upstream;
  readonly level: Level;
  readonly sequence: number;
  readonly submittedAtMs: number;
  /** With the time that it waited before it was submitted again. */
  readonly sinceMs: number;
  /** {@link LiveTurns} changes it. */
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

export type TurnLease = LaneLease<TurnState>;

/** What is in the queues: whatever their order, they give back what was put in. */
export interface QueuedTurn extends QueueEntry {
  readonly state: TurnState;
}

/** What a turn's state is made of. */
export type Submission = Pick<TurnState, 'turn' | 'listener' | 'upstream' | 'level'> & {
  /** What was kept of the same request; null: it is a new one. */
  readonly place: Place | null;
};

/** All turns that are not over, in the order of their submission; their sessions are told where each of them is. */
export class LiveTurns {
  readonly #clock: Clock;
  readonly #agents: Agents;
  readonly #states = new LinkedList<TurnState>();
  #submitted = 0;

  constructor(clock: Clock, agents: Agents) {
    this.#clock = clock;
    this.#agents = agents;
  }

  [Symbol.iterator](): Iterator<TurnState> {
    return this.#states[Symbol.iterator]();
  }

  add({ turn, listener, upstream, level, place }: Submission, nowMs: number): TurnState {
    const state: TurnState = {
      turn,
      listener,
      upstream,
      level,
      sequence: this.#submitted,
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
    this.#submitted += 1;
    upstream.came(level, nowMs);
    upstream.turns += 1;
    this.#states.add(state);
    this.#agents.came(turn);
    return state;
  }

  moved(state: TurnState, phase: Exclude<TurnState['phase'], 'over'>): void {
    if ((phase === 'running') !== (state.phase === 'running')) {
      this.#agents.moved(state.turn, phase === 'running' ? 'running' : 'waiting');
    }
    this.#enter(state, phase);
  }

  over(state: TurnState): void {
    state.timer?.cancel();
    state.timer = null;
    const from = state.phase === 'running' ? 'running' : 'waiting';
    this.#enter(state, 'over');
    state.upstream.turns -= 1;
    this.#states.remove(state);
    this.#agents.left(state.turn, from, state.endsRun);
  }

  #enter(state: TurnState, phase: TurnState['phase']): void {
    state.phase = phase;
    state.phaseAtMs = this.#clock.now();
  }
}
