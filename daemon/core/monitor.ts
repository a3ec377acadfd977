// SPDX-License-Identifier: Apache-2.0
import type { ProxyMonitor, ProxySession } from '../control/types.ts';
import type { AgentSnapshot, UpstreamSnapshot } from '../scheduler/snapshot.ts';
import type { TurnScheduler } from '../scheduler/types.ts';
import { isOf, sessionName } from '../session/name.ts';

/** Sessions in one answer, those that were heard of last; a screen shows some dozens. */
const MAX_SESSIONS = 256;
/** Runs of one of them: as many subagents as are of interest. */
const MAX_RUNS = 16;
/** Upstreams in one answer, those with most turns. */
const MAX_UPSTREAMS = 64;

/**
 * The core's part of the monitor. Bounded, because the daemon's loop reads it.
 * @param uid whose sessions; undefined: everybody's, and those of nobody known.
 */
export function proxyMonitor(scheduler: TurnScheduler, uid: number | undefined): ProxyMonitor {
  const sees = uid === undefined ? undefined : isOf(uid);
  const snapshot = scheduler.snapshot(sees);
  const sessions: ProxySession[] = [];
  for (const agent of scheduler.agents())
    if (sees?.(agent.session) !== false) sessions.push(sessionOf(agent));
  const busiest = [...snapshot.upstreams].sort((a, b) => b.turns.length - a.turns.length);
  const shown = sessions.slice(-MAX_SESSIONS);
  return {
    queued: snapshot.queued,
    running: snapshot.running,
    delayed: snapshot.delayed,
    gated: snapshot.gated,
    held: snapshot.held,
    pressure: snapshot.host,
    agents: snapshot.agents,
    upstreams: busiest.slice(0, MAX_UPSTREAMS).map((upstream) => upstreamOf(upstream, snapshot.atMs)),
    sessions: shown,
    omitted: sessions.length - shown.length,
  };
}

function sessionOf(agent: AgentSnapshot): ProxySession {
  const { id, uid } = sessionName(agent.session);
  return {
    id,
    uid,
    class: agent.class,
    lanes: agent.running,
    queuedTurns: agent.waiting,
    grantedTurns: agent.granted,
    finishedTurns: agent.finished,
    usedTokens: agent.usedTokens,
    holdsPlace: agent.holdsPlace,
    terminated: agent.terminated,
    ageMs: Math.round(agent.ageMs),
    sinceTurnMs: Math.round(agent.sinceTurnMs),
    runs: agent.runs
      .slice(-MAX_RUNS)
      .map(({ agent: name, ageMs }) => ({ agent: name, ageMs: Math.round(ageMs) })),
  };
}

function upstreamOf(upstream: UpstreamSnapshot, nowMs: number): ProxyMonitor['upstreams'][number] {
  const { provider, credential, modelClass, lanes, levels, buckets, pausedUntilMs, breaker, subscription } =
    upstream;
  return {
    provider,
    credential,
    modelClass,
    lanes,
    levels: levels.map((level) => ({ ...level, oldestWaitMs: Math.round(level.oldestWaitMs) })),
    buckets,
    pausedMs: pausedUntilMs === null ? null : Math.max(0, Math.round(pausedUntilMs - nowMs)),
    breaker,
    subscription,
  };
}
