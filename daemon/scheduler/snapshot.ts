// SPDX-License-Identifier: Apache-2.0
import type { Conditions } from './conditions.ts';
import type { LiveTurns, TurnState } from './live-turns.ts';
import { LEVELS } from './queue.ts';
import { type SchedulerSnapshot, TURN_CLASSES, type TurnSnapshot, type UpstreamSnapshot } from './types.ts';
import type { Upstream } from './upstream.ts';
import type { Upstreams } from './upstreams.ts';
import type { WaitingTurns } from './waiting-turns.ts';

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
    .filter((upstream) => sees === undefined || byUpstream.has(upstream) || upstream.usedBy(sees));
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
