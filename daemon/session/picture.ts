// SPDX-License-Identifier: Apache-2.0
import type { ProxySession, SessionClass, SessionRecord, SessionState } from '../control/types.ts';
import { sessionKey } from './name.ts';

/** A session as its tool calls show it. */
export interface CallSession {
  readonly id: string;
  readonly uid: number;
  readonly agent: string | null;
  readonly cgroup: string;
  /** As it was told last, by a core that may not answer now. */
  readonly class: SessionClass | null;
  readonly startedAtMs: number;
  readonly lastActiveMs: number;
  readonly liveCalls: number;
  readonly frozenCalls: number;
  readonly finishedCalls: number;
  readonly usedBytes: number;
}

const NO_TURNS = {
  lanes: 0,
  queuedTurns: 0,
  grantedTurns: 0,
  finishedTurns: 0,
  usedTokens: 0,
  terminated: false,
  runs: [],
} as const;

const NO_CALLS = { liveCalls: 0, frozenCalls: 0, finishedCalls: 0, usedBytes: 0 } as const;

/** Both halves in one list: what only one of them knows is there too. Sessions with calls first. */
export function sessionRecords(
  ofCalls: readonly CallSession[],
  ofTurns: readonly ProxySession[],
  nowMs: number,
): SessionRecord[] {
  const turnsOf = new Map(ofTurns.map((turns) => [sessionKey(turns.uid, turns.id), turns]));
  const records = ofCalls.map((calls) => {
    const key = sessionKey(calls.uid, calls.id);
    const turns = turnsOf.get(key);
    turnsOf.delete(key);
    return recordOf(calls, turns, nowMs);
  });
  for (const turns of turnsOf.values()) records.push(recordOf(undefined, turns, nowMs));
  return records;
}

function recordOf(
  calls: CallSession | undefined,
  turns: ProxySession | undefined,
  nowMs: number,
): SessionRecord {
  const { liveCalls, frozenCalls, finishedCalls, usedBytes } = calls ?? NO_CALLS;
  const { lanes, queuedTurns, finishedTurns, usedTokens, runs } = turns ?? NO_TURNS;
  const started = [calls?.startedAtMs, turns && nowMs - turns.ageMs].filter((atMs) => atMs !== undefined);
  const active = [calls?.lastActiveMs, turns && nowMs - turns.sinceTurnMs].filter(
    (atMs) => atMs !== undefined,
  );
  return {
    id: calls?.id ?? turns?.id ?? '',
    uid: calls?.uid ?? turns?.uid ?? null,
    agent: calls?.agent ?? null,
    state: stateOf(calls, turns),
    class: turns?.class ?? calls?.class ?? null,
    cgroup: calls?.cgroup ?? null,
    startedAt: new Date(Math.min(...started)).toISOString(),
    lastActiveAt: new Date(Math.max(...active)).toISOString(),
    liveCalls,
    frozenCalls,
    finishedCalls,
    usedBytes,
    lanes,
    queuedTurns,
    finishedTurns,
    usedTokens,
    openRuns: runs.length,
  };
}

/** Where a session is in its life, from what is under way of it. */
export function stateOf(
  calls: Pick<CallSession, 'liveCalls' | 'frozenCalls' | 'finishedCalls'> | undefined,
  turns: Pick<ProxySession, 'lanes' | 'queuedTurns' | 'grantedTurns' | 'terminated'> | undefined,
): SessionState {
  const { liveCalls, frozenCalls, finishedCalls } = calls ?? NO_CALLS;
  const { lanes, queuedTurns, grantedTurns, terminated } = turns ?? NO_TURNS;
  if (lanes > 0 || liveCalls > frozenCalls) return 'running';
  if (queuedTurns > 0) return grantedTurns + liveCalls + finishedCalls === 0 ? 'created' : 'ready';
  // With its agent's process alive, which the other half watches, it waits for its user, however long.
  return terminated && calls === undefined ? 'terminated' : 'waiting';
}
