// SPDX-License-Identifier: Apache-2.0
import {
  type Agent,
  bestClass,
  isBusy,
  isNew,
  newAgent,
  type OpenRun,
  runOf,
  type TurnPlace,
  turnOfRunLeft,
} from './agent.ts';
import type { Clock } from './clock.ts';
import type { AbandonedEvidence } from './events.ts';
import { IdleWait } from './idle-wait.ts';
import { KnownCalls } from './known-calls.ts';
import { RecentMap } from './recent-map.ts';
import type { SavedRun } from './saved-state.ts';
import type { AgentSettings } from './settings.ts';
import type { AgentSnapshot } from './snapshot.ts';
import { type CallsOfSession, TURN_CLASSES, type Turn, type TurnClass } from './types.ts';

/** An open run as it outlives a restart, but for its level. */
export type OpenRunRecord = Omit<SavedRun, 'level' | 'usedMs'>;

export interface AgentsHost {
  readonly clock: Clock;
  /** As they are in force. */
  readonly settings: () => AgentSettings;
  readonly dryRun: () => boolean;
  /** Sessions that are remembered. */
  readonly capacity: number;
  readonly evicted: () => void;
  readonly classOf: (session: string, turnClass: TurnClass) => void;
  /** Its runs have been ended, unless it is a dry run. */
  readonly abandoned: (evidence: AbandonedEvidence) => void;
  /** It has neither a turn nor an open run any more. */
  readonly over: (session: string) => void;
  /** Whether it is one of the running agents, if those are limited. */
  readonly holdsPlace: (session: string) => boolean;
}

/** A session that is over is shown for so long, so that somebody who looks now sees how it ended. */
const SHOWN_MS = 600_000;

/** Subagents of one session whose runs are looked after; Claude Code starts ten at a time. */
const MAX_RUNS_OF_SESSION = 256;

/**
 * Sessions with their runs, from the first turn to the end: an answer that ends the run, or nobody who goes on
 * with it. A run is abandoned when its session has had no turn, no live tool call and no further request for the
 * configured time; the subagents of a session are one with it, because it waits for them.
 */
export class Agents {
  readonly #host: AgentsHost;
  /** Who was heard of last at the end. */
  readonly #agents: RecentMap<string, Agent>;
  readonly #calls: KnownCalls;
  /** For somebody to go on with those that have neither a turn nor a call. */
  readonly #idle: IdleWait<Agent>;

  constructor(host: AgentsHost) {
    this.#host = host;
    const forgotten = (agent: Agent): void => {
      host.evicted();
      this.#idle.stop(agent);
      host.over(agent.session);
    };
    this.#agents = new RecentMap(host.capacity, forgotten, isBusy);
    this.#calls = new KnownCalls(host.capacity, host.evicted);
    this.#idle = new IdleWait(host.clock, (agent, nowMs) => this.#end(agent, nowMs));
  }

  /** A turn was submitted, and may not have a lane at once. */
  came(turn: Turn): void {
    const { clock } = this.#host;
    const nowMs = clock.now();
    const agent = this.#agents.get(turn.session) ?? this.#add(turn.session, nowMs);
    agent.turns.waiting += 1;
    agent.lastTurnMs = nowMs;
    agent.terminatedAtMs = null;
    this.#idle.stop(agent);
    agent.cameMs[TURN_CLASSES.indexOf(turn.class)] = nowMs;
    const best = bestClass(agent, this.#host.settings().classMs, nowMs);
    if (best !== undefined && (isNew(agent) || best !== agent.class)) {
      agent.class = best;
      this.#host.classOf(turn.session, best);
    }
    const name = turn.agent ?? '';
    const run = runOf(agent, name);
    if (run === undefined) this.#open(agent, name, turn.modelClass, nowMs);
    else if (!turn.runStart) run.modelClass = turn.modelClass;
  }

  /** It has got a lane, or has lost it and waits again. */
  moved({ session, agent: name = '' }: Turn, to: TurnPlace): void {
    const agent = this.#agents.peek(session);
    if (agent === undefined) return;
    agent.turns[to === 'running' ? 'waiting' : 'running'] -= 1;
    agent.turns[to] += 1;
    if (to === 'waiting') return;
    agent.granted += 1;
    const run = runOf(agent, name);
    if (run !== undefined) run.began = true;
  }

  /** @param endsRun whether its answer was the last of its run; undefined: it does not say. */
  left(turn: Turn, from: TurnPlace, endsRun: boolean | undefined): void {
    const agent = this.#agents.peek(turn.session);
    if (agent === undefined) return;
    agent.turns[from] -= 1;
    agent.finished += 1;
    agent.lastTurnMs = this.#host.clock.now();
    turnOfRunLeft(agent, turn, endsRun);
    this.#rest(agent);
  }

  /**
   * What the node agent knows of a session's tool calls now.
   * @param calls null: nothing any more, the session has ended there.
   */
  setCalls(session: string, calls: CallsOfSession | null): void {
    const changed = this.#calls.set(session, calls, this.#host.clock.now());
    const agent = this.#agents.peek(session);
    if (agent === undefined || !changed) return;
    // Time counts from the end of the last call on; while one lives it does not pass.
    this.#idle.stop(agent);
    if (this.#calls.hasLive(session)) agent.terminatedAtMs = null;
    this.#rest(agent);
  }

  *snapshot(): Generator<Omit<AgentSnapshot, 'usedTokens'>> {
    const nowMs = this.#host.clock.now();
    for (const agent of this.#agents.values()) {
      const { session, turns, granted, finished, runs, terminatedAtMs } = agent;
      if (terminatedAtMs !== null && nowMs - terminatedAtMs > SHOWN_MS) continue;
      yield {
        session,
        class: agent.class,
        running: turns.running,
        waiting: turns.waiting,
        granted,
        finished,
        calls: this.#calls.of(session),
        holdsPlace: this.#host.holdsPlace(session),
        terminated: terminatedAtMs !== null,
        ageMs: nowMs - agent.startedAtMs,
        sinceTurnMs: nowMs - agent.lastTurnMs,
        runs: runs.map(({ agent: name, startedAtMs }) => ({
          agent: name === '' ? null : name,
          ageMs: nowMs - startedAtMs,
        })),
      };
    }
  }

  /** Open runs, newest last. @param most how many at most. */
  save(most: number): OpenRunRecord[] {
    const { clock } = this.#host;
    const toWallMs = clock.wallNow() - clock.now();
    const saved: OpenRunRecord[] = [];
    for (const agent of this.#agents.values()) {
      for (const run of agent.runs) {
        saved.push({
          session: agent.session,
          agent: run.agent === '' ? null : run.agent,
          class: agent.class,
          modelClass: run.modelClass,
          startedWallMs: toWallMs + run.startedAtMs,
          lastTurnWallMs: toWallMs + agent.lastTurnMs,
          holdsPlace: this.#host.holdsPlace(agent.session),
        });
      }
    }
    return saved.sort((a, b) => a.lastTurnWallMs - b.lastTurnWallMs).slice(-most);
  }

  /** @param saved of an earlier process, as {@link save} ordered it. */
  restore(saved: readonly OpenRunRecord[]): void {
    const { clock } = this.#host;
    const nowMs = clock.now();
    for (const { session, agent: name, class: turnClass, modelClass, startedWallMs } of saved) {
      const agent = this.#agents.get(session) ?? this.#add(session, nowMs);
      agent.class = turnClass;
      // Nobody could go on with it while there was no proxy: it is waited for anew.
      const startedAtMs = nowMs + Math.min(0, startedWallMs - clock.wallNow());
      const run = runOf(agent, name ?? '') ?? this.#open(agent, name ?? '', modelClass, startedAtMs);
      run.began = true;
      this.#rest(agent);
    }
  }

  /** The settings are other ones: whoever is waited for is waited for anew, so that they end in order. */
  configured(): void {
    this.#idle.restart();
    for (const agent of this.#agents.values()) {
      this.#idle.stop(agent);
      if (agent.terminatedAtMs === null) this.#rest(agent);
    }
  }

  /** Sessions with a turn or an open run. */
  *underWay(): Generator<string> {
    for (const agent of this.#agents.values()) {
      if (isBusy(agent) || agent.runs.length > 0) yield agent.session;
    }
  }

  close(): void {
    this.#idle.close();
  }

  #add(session: string, nowMs: number): Agent {
    const agent = newAgent(session, nowMs);
    this.#agents.set(session, agent);
    return agent;
  }

  #open(agent: Agent, name: string, modelClass: string, startedAtMs: number): OpenRun {
    if (agent.runs.length >= MAX_RUNS_OF_SESSION) {
      agent.runs.shift();
      this.#host.evicted();
    }
    const run: OpenRun = { agent: name, startedAtMs, modelClass, began: false };
    agent.runs.push(run);
    return run;
  }

  /** Nothing of it may be under way any more: from now on it is waited for. */
  #rest(agent: Agent): void {
    if (isBusy(agent)) return;
    if (agent.runs.length === 0) this.#host.over(agent.session);
    const { abandonedMs } = this.#host.settings();
    if (this.#calls.hasLive(agent.session) || abandonedMs === Number.POSITIVE_INFINITY) return;
    this.#idle.start(agent, abandonedMs);
  }

  #end(agent: Agent, nowMs: number): void {
    const { abandoned, over } = this.#host;
    const dryRun = this.#host.dryRun();
    const { session, runs } = agent;
    if (runs.length > 0) {
      const noneSinceMs = this.#calls.noneSinceMs(session);
      const evidence: AbandonedEvidence = {
        session,
        class: agent.class,
        runs: runs.length,
        limitMs: this.#host.settings().abandonedMs,
        sinceTurnMs: nowMs - agent.lastTurnMs,
        calls: noneSinceMs === null ? null : { live: 0, noneForMs: nowMs - noneSinceMs },
        holdsPlace: this.#host.holdsPlace(session),
        dryRun,
      };
      if (!dryRun) runs.length = 0;
      abandoned(evidence);
      // Once: it is waited for again when something has come of it.
      if (dryRun) return;
    }
    agent.terminatedAtMs = nowMs;
    over(session);
  }
}
