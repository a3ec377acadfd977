// SPDX-License-Identifier: Apache-2.0
import type { Clock, Timer } from './clock.ts';
import type { AbandonedEvidence } from './events.ts';
import { type Linked, LinkedList } from './linked-list.ts';
import { RecentMap } from './recent-map.ts';
import type { SavedRun } from './saved-state.ts';
import type { AgentSettings } from './settings.ts';
import type { AgentSnapshot } from './snapshot.ts';
import { type CallsOfSession, TURN_CLASSES, type Turn, type TurnClass } from './types.ts';

/** Where a turn is, as its session counts it. */
export type TurnPlace = 'waiting' | 'running';

/** A run that no answer has ended yet. */
interface OpenRun {
  /** Within the session; '' is its user's own. */
  readonly agent: string;
  readonly startedAtMs: number;
  /** Whose answer ends it: a small question to another model on the way is no part of it. */
  modelClass: string;
  /** A turn of it had a lane. */
  began: boolean;
}

/** A session as its turns show it. */
interface Agent extends Linked<Agent> {
  readonly session: string;
  readonly startedAtMs: number;
  /** When its newest turn of each class came. */
  readonly cameMs: [number, number, number];
  class: TurnClass;
  readonly turns: Record<TurnPlace, number>;
  /** Turns that had a lane. */
  granted: number;
  finished: number;
  /** One of each agent at most, oldest first; few, so that looking through them costs less than a Map's garbage. */
  readonly runs: OpenRun[];
  lastTurnMs: number;
  /** When it was found that nobody goes on with it; null: it was not. */
  terminatedAtMs: number | null;
  /** Until when it is waited for; null: it is not. */
  idleUntilMs: number | null;
}

/** An open run as it outlives a restart, but for its level. */
export type OpenRunRecord = Omit<SavedRun, 'level' | 'usedMs'>;

interface KnownCalls {
  readonly calls: CallsOfSession;
  /** Since when it has had none; null: it has some. */
  readonly noneSinceMs: number | null;
}

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
 *
 * One timer for all: they all wait equally long, so that the order in which they fell idle is that of their ends.
 */
export class Agents {
  readonly #host: AgentsHost;
  /** Who was heard of last at the end. */
  readonly #agents: RecentMap<string, Agent>;
  /** What the node agent told, of sessions without turns too: those may follow. */
  readonly #calls: RecentMap<string, KnownCalls>;
  /** Sessions without turn and call that are waited for, soonest first. */
  readonly #idle = new LinkedList<Agent>();
  #timer: Timer | null = null;
  #closed = false;

  constructor(host: AgentsHost) {
    this.#host = host;
    const forgotten = (agent: Agent): void => {
      host.evicted();
      this.#notIdle(agent);
      host.over(agent.session);
    };
    this.#agents = new RecentMap(host.capacity, forgotten, isBusy);
    this.#calls = new RecentMap(host.capacity, host.evicted, ({ calls }) => calls.live > 0);
  }

  /** A turn was submitted, and may not have a lane at once. */
  came(turn: Turn): void {
    const { clock } = this.#host;
    const settings = this.#host.settings();
    const nowMs = clock.now();
    const agent = this.#agents.get(turn.session) ?? this.#add(turn.session, nowMs);
    agent.turns.waiting += 1;
    agent.lastTurnMs = nowMs;
    agent.terminatedAtMs = null;
    this.#notIdle(agent);
    agent.cameMs[TURN_CLASSES.indexOf(turn.class)] = nowMs;
    const best = TURN_CLASSES.find((_, index) => (agent.cameMs[index] as number) >= nowMs - settings.classMs);
    const first = agent.granted + agent.finished === 0 && agent.turns.waiting + agent.turns.running === 1;
    if (best !== undefined && (first || best !== agent.class)) {
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
    const run = runOf(agent, turn.agent ?? '');
    if (run !== undefined) {
      const ended = endsRun === true && (!turn.runStart || run.modelClass === turn.modelClass);
      // Or its client went, or was turned away, before anything of it ran.
      if (ended || (!run.began && !isBusy(agent))) agent.runs.splice(agent.runs.indexOf(run), 1);
    }
    this.#rest(agent);
  }

  /**
   * What the node agent knows of a session's tool calls now.
   * @param calls null: nothing any more, the session has ended there.
   */
  setCalls(session: string, calls: CallsOfSession | null): void {
    const before = this.#calls.peek(session);
    const hadSome = (before?.calls.live ?? 0) > 0;
    const hasSome = calls !== null && calls.live > 0;
    if (calls === null) this.#calls.delete(session);
    else {
      const noneSinceMs = hasSome ? null : (before?.noneSinceMs ?? this.#host.clock.now());
      this.#calls.set(session, { calls, noneSinceMs });
    }
    const agent = this.#agents.peek(session);
    if (agent === undefined || hadSome === hasSome) return;
    // Time counts from the end of the last call on; while one lives it does not pass.
    this.#notIdle(agent);
    if (hasSome) agent.terminatedAtMs = null;
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
        calls: this.#calls.peek(session)?.calls ?? null,
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
    this.#timer?.cancel();
    this.#timer = null;
    for (const agent of this.#agents.values()) {
      this.#notIdle(agent);
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
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #add(session: string, nowMs: number): Agent {
    const never = Number.NEGATIVE_INFINITY;
    const agent: Agent = {
      session,
      startedAtMs: nowMs,
      cameMs: [never, never, never],
      class: 'interactive',
      turns: { waiting: 0, running: 0 },
      granted: 0,
      finished: 0,
      runs: [],
      lastTurnMs: nowMs,
      terminatedAtMs: null,
      idleUntilMs: null,
      previous: null,
      next: null,
    };
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
    if (this.#liveCalls(agent.session) > 0 || abandonedMs === Number.POSITIVE_INFINITY) return;
    this.#notIdle(agent);
    agent.idleUntilMs = this.#host.clock.now() + abandonedMs;
    this.#idle.add(agent);
    this.#arm();
  }

  #notIdle(agent: Agent): void {
    if (agent.idleUntilMs === null) return;
    agent.idleUntilMs = null;
    this.#idle.remove(agent);
  }

  #arm(): void {
    if (this.#timer !== null || this.#closed) return;
    const untilMs = this.#idle.first?.idleUntilMs ?? null;
    if (untilMs === null) return;
    this.#timer = this.#host.clock.setTimer(Math.max(0, untilMs - this.#host.clock.now()), () => {
      this.#timer = null;
      this.#waitedLongEnough();
      this.#arm();
    });
  }

  #waitedLongEnough(): void {
    const nowMs = this.#host.clock.now();
    for (;;) {
      const agent = this.#idle.first;
      if (agent === null || (agent.idleUntilMs ?? nowMs) > nowMs) return;
      this.#notIdle(agent);
      this.#end(agent, nowMs);
    }
  }

  #end(agent: Agent, nowMs: number): void {
    const { abandoned, over } = this.#host;
    const dryRun = this.#host.dryRun();
    const { session, runs } = agent;
    if (runs.length > 0) {
      const known = this.#calls.peek(session);
      const noneSinceMs = known?.noneSinceMs ?? null;
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

  #liveCalls(session: string): number {
    return this.#calls.peek(session)?.calls.live ?? 0;
  }
}

function runOf({ runs }: Agent, name: string): OpenRun | undefined {
  return runs.find(({ agent }) => agent === name);
}

function isBusy({ turns }: Agent): boolean {
  return turns.waiting + turns.running > 0;
}
