// SPDX-License-Identifier: Apache-2.0
import type { Conditions } from './conditions.ts';
import type { LiveTurns, TurnState } from './live-turns.ts';
import { LEVELS } from './queue.ts';
import type { BucketSnapshot } from './rate-limits.ts';
import type { SubscriptionSnapshot } from './subscription.ts';
import { type CallsOfSession, type HostPressure, TURN_CLASSES, type TurnClass } from './types.ts';
import type { Upstream } from './upstream.ts';
import type { Upstreams } from './upstreams.ts';
import type { WaitingTurns } from './waiting-turns.ts';

/** A moment's picture, for status, metrics and `agentrm top`. */
export interface SchedulerSnapshot {
  readonly atMs: number;
  readonly queued: number;
  readonly running: number;
  /** Waiting out the delay before a retry; they hold neither a lane nor a place among the queued. */
  readonly delayed: number;
  /** Of the queued, those whose agent waits for one of the running agents to end. */
  readonly gated: number;
  /** Of the queued, those that would have a lane but for the host's memory. */
  readonly held: number;
  readonly host: HostPressure;
  readonly agents: AgentCounts;
  readonly upstreams: readonly UpstreamSnapshot[];
}

export interface AgentCounts {
  /** Sessions that may run at a time; null: any number. */
  readonly limit: number | null;
  /** That hold a place; 0 without a limit. */
  readonly running: number;
  readonly waiting: number;
}

/** One session, as its turns show it. */
export interface AgentSnapshot {
  readonly session: string;
  readonly class: TurnClass;
  /** Turns that hold a lane. */
  readonly running: number;
  /** Turns that wait for one, delays before retries included. */
  readonly waiting: number;
  /** Leases so far. */
  readonly granted: number;
  /** Turns that are over, in whatever way. */
  readonly finished: number;
  /** Input and output, as far as was told. */
  readonly usedTokens: number;
  readonly calls: CallsOfSession | null;
  readonly holdsPlace: boolean;
  /** Nobody has gone on with it for the configured time. */
  readonly terminated: boolean;
  readonly ageMs: number;
  /** Since its last turn came or ended. */
  readonly sinceTurnMs: number;
  /** That no answer has ended. */
  readonly runs: readonly RunSnapshot[];
}

export interface RunSnapshot {
  /** Null: the user's own. */
  readonly agent: string | null;
  readonly ageMs: number;
}

/** One (provider, credential, model class): what shares lanes and limits. */
export interface UpstreamSnapshot {
  readonly provider: string;
  readonly credential: string;
  readonly modelClass: string;
  readonly lanes: {
    readonly held: number;
    readonly limit: number;
    /** Whether the limit is configured and not adaptive. */
    readonly fixed: boolean;
  };
  readonly levels: readonly LevelSnapshot[];
  readonly buckets: readonly BucketSnapshot[];
  /** Until when the upstream asked for silence, if it did. */
  readonly pausedUntilMs: number | null;
  readonly breaker: 'closed' | 'open' | 'half-open';
  /** The same for every model class of the account; null: it has none, as far as its answers have told. */
  readonly subscription: SubscriptionSnapshot | null;
  readonly expectedOutputTokens: number;
  readonly turns: readonly TurnSnapshot[];
}

export interface LevelSnapshot {
  readonly level: TurnClass;
  readonly queued: number;
  readonly running: number;
  readonly oldestWaitMs: number;
}

export interface TurnSnapshot {
  readonly turn: string;
  readonly session: string;
  readonly agent: string | null;
  readonly class: TurnClass;
  readonly level: TurnClass;
  /** `gated`: its agent waits for one of the running agents to end. */
  readonly state: 'queued' | 'running' | 'delayed' | 'gated';
  readonly attempt: number;
  /** In this state. */
  readonly sinceMs: number;
}

/** What a picture is made of. */
export interface SnapshotParts {
  readonly upstreams: Upstreams;
  readonly turns: LiveTurns;
  readonly waiting: WaitingTurns;
}

/** @param sees whose sessions are to be seen: those upstreams, and these turns; default all */
export function snapshotOf(
  { upstreams, turns, waiting }: SnapshotParts,
  conditions: Readonly<Conditions>,
  sees?: (session: string) => boolean,
): SchedulerSnapshot {
  const byUpstream = new Map<Upstream, TurnState[]>();
  const count = { queued: 0, gated: 0, running: 0, delayed: 0, over: 0 };
  for (const state of turns) {
    count[state.phase] += 1;
    if (sees?.(state.turn.session) === false) continue;
    const list = byUpstream.get(state.upstream);
    if (list === undefined) byUpstream.set(state.upstream, [state]);
    else list.push(state);
  }
  const seen = upstreams
    .values()
    .filter((upstream) => sees === undefined || byUpstream.has(upstream) || upstream.shares.usedBy(sees));
  return {
    atMs: conditions.clock.now(),
    queued: waiting.queued,
    running: count.running,
    delayed: count.delayed,
    gated: count.gated,
    held: waiting.held,
    host: conditions.pressure,
    agents: waiting.agentCounts(),
    upstreams: seen.map((upstream) => upstreamSnapshot(upstream, byUpstream.get(upstream) ?? [], conditions)),
  };
}

function upstreamSnapshot(
  upstream: Upstream,
  states: readonly TurnState[],
  { clock, settings }: Readonly<Conditions>,
): UpstreamSnapshot {
  const nowMs = clock.now();
  return {
    ...upstream.key,
    lanes: { held: upstream.held, limit: upstream.lanes.limit, fixed: settings.lanes.fixed !== null },
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
    subscription: upstream.subscription.snapshot(clock.wallNow()),
    expectedOutputTokens: upstream.expectedOutput.value,
    turns: states.map((state) => turnSnapshot(state, nowMs)),
  };
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
