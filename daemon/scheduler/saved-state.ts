// SPDX-License-Identifier: Apache-2.0
import type { Agents } from './agents.ts';
import type { Conditions } from './conditions.ts';
import type { LiveTurns } from './live-turns.ts';
import { type Place, type Places, placeKey } from './places.ts';
import type { RecentMap } from './recent-map.ts';
import type { Resource } from './resources.ts';
import type { Runs } from './runs.ts';
import type { TurnClass } from './types.ts';
import type { Upstreams } from './upstreams.ts';
import type { WaitingTurns } from './waiting-turns.ts';

/** What outlives a restart, as JSON. Times are of the day: the clock starts anew. */
export interface SavedState {
  readonly version: 1;
  readonly savedAtWallMs: number;
  readonly budgets: readonly { readonly session: string; readonly usedTokens: number }[];
  /** Of turns that waited or whose place was kept. */
  readonly places: readonly {
    readonly credential: string;
    readonly bodyHash: string;
    readonly sinceWallMs: number;
    readonly attempts: number;
  }[];
  /** Open runs, newest last; absent in what older cores saved. */
  readonly runs?: readonly SavedRun[];
  readonly upstreams: readonly {
    readonly provider: string;
    readonly credential: string;
    readonly modelClass: string;
    readonly laneLimit: number;
    readonly expectedOutputTokens: number;
    readonly pausedUntilWallMs: number | null;
    readonly buckets: readonly {
      readonly resource: Resource;
      readonly limitPerMin: number | null;
      readonly available: number | null;
    }[];
  }[];
}

export interface SavedRun {
  readonly session: string;
  readonly agent: string | null;
  readonly class: TurnClass;
  readonly modelClass: string;
  readonly level: TurnClass;
  /** Service at this level. */
  readonly usedMs: number;
  readonly startedWallMs: number;
  readonly lastTurnWallMs: number;
  readonly holdsPlace: boolean;
}

/** Of what something outlives a restart. */
export interface SavedParts {
  readonly usedTokens: RecentMap<string, number>;
  readonly places: Places;
  readonly turns: LiveTurns;
  readonly waiting: WaitingTurns;
  readonly agents: Agents;
  readonly runs: Runs;
  readonly upstreams: Upstreams;
}

/** Runs that outlive a restart: as many as fit into a message with everything else, and more than a host has. */
const SAVED_RUNS = 2_000;

export function save(parts: SavedParts, { clock }: Readonly<Conditions>): SavedState {
  const { usedTokens, agents, runs, upstreams } = parts;
  const nowMs = clock.now();
  const wallMs = clock.wallNow();
  const wall = (ms: number) => wallMs + ms - nowMs;
  return {
    version: 1,
    savedAtWallMs: wallMs,
    budgets: usedTokens.entries().map(([session, tokens]) => ({ session, usedTokens: tokens })),
    places: [...placesOf(parts, nowMs)].map(([key, { sinceMs, retries }]) => {
      const [credential = '', bodyHash = ''] = key.split('\n');
      return { credential, bodyHash, sinceWallMs: wall(sinceMs), attempts: retries };
    }),
    runs: agents.save(SAVED_RUNS).map((run) => {
      const standing = runs.standingOf(run.session, run.agent);
      return { ...run, level: standing?.level ?? run.class, usedMs: standing?.usedMs ?? 0 };
    }),
    upstreams: upstreams.values().map((upstream) => ({
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

/** Those that are kept, and those of turns that live. */
function placesOf({ places, turns }: SavedParts, nowMs: number): Map<string, Place> {
  const all = new Map<string, Place>(places.live(nowMs));
  for (const { turn, sinceMs, retries, phase } of turns) {
    // What runs is sent again by its client: it had its turn, and keeps its retries used.
    if (phase !== 'over') all.set(placeKey(turn.credential, turn.bodyHash()), { sinceMs, retries });
  }
  return all;
}

/** Puts back what an earlier process has saved, before the first turn comes. */
export function restore(
  parts: SavedParts,
  { clock, settings }: Readonly<Conditions>,
  saved: SavedState,
): void {
  const { usedTokens, places, waiting, agents, runs, upstreams } = parts;
  const nowMs = clock.now();
  const local = (wallMs: number) => nowMs + Math.min(0, wallMs - clock.wallNow());
  for (const { session, usedTokens: tokens } of saved.budgets) usedTokens.set(session, tokens);
  for (const { credential, bodyHash, sinceWallMs, attempts } of saved.places) {
    const place = { sinceMs: local(sinceWallMs), retries: attempts };
    places.keepKey(placeKey(credential, bodyHash), place, nowMs + settings.queue.placeKeptMs);
  }
  const savedRuns = saved.runs ?? [];
  for (const { session, agent, level, usedMs, holdsPlace } of savedRuns) {
    runs.restore(session, agent, level, usedMs);
    if (holdsPlace) waiting.restorePlace(session);
  }
  agents.restore(savedRuns);
  for (const told of saved.upstreams) {
    const upstream = upstreams.of(told);
    upstream.lanes.restore(told.laneLimit);
    upstream.expectedOutput.restore(told.expectedOutputTokens);
    if (told.pausedUntilWallMs !== null) {
      const leftMs = told.pausedUntilWallMs - clock.wallNow();
      // The time of day may have been set meanwhile.
      upstream.pausedUntilMs = nowMs + Math.min(leftMs, settings.limits.pauseMostMs);
    }
    for (const { resource, limitPerMin, available } of told.buckets) {
      if (limitPerMin === null || available === null) continue;
      upstream.limits.restore(resource, limitPerMin, available, nowMs);
    }
  }
}
