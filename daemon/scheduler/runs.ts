// SPDX-License-Identifier: Apache-2.0
import type { Level } from './queue.ts';
import { RecentMap } from './recent-map.ts';
import type { LevelSettings } from './settings.ts';
import { TURN_CLASSES, type Turn, type TurnClass } from './types.ts';

interface Run {
  level: Level;
  /** Service at this level. */
  usedMs: number;
}

/**
 * At which level a run stands: it begins at that of its class and goes down by the service that it uses, until a
 * person speaks again. A class is also a floor: nothing lifts a run over it.
 */
export class Runs {
  readonly #settings: LevelSettings;
  readonly #onDemoted: () => void;
  readonly #runs: RecentMap<string, Run>;

  constructor(settings: LevelSettings, capacity: number, onDemoted: () => void, onEvict: () => void) {
    this.#settings = settings;
    this.#onDemoted = onDemoted;
    this.#runs = new RecentMap(capacity, onEvict);
  }

  /** A turn comes: the level at which it waits. */
  levelOf(turn: Turn): Level {
    const floor = TURN_CLASSES.indexOf(turn.class) as Level;
    const key = keyOf(turn);
    const run = this.#runs.get(key);
    if (run === undefined || turn.runStart) {
      this.#runs.set(key, { level: floor, usedMs: 0 });
      return floor;
    }
    return Math.max(run.level, floor) as Level;
  }

  /** A turn of it was served for so long. */
  served(turn: Turn, serviceMs: number): void {
    const run = this.#runs.peek(keyOf(turn));
    if (run === undefined) return;
    run.usedMs += serviceMs;
    while (run.level < 2) {
      const quantumMs = this.#settings.quantaMs[run.level as 0 | 1];
      if (run.usedMs < quantumMs) return;
      run.usedMs -= quantumMs;
      run.level = (run.level + 1) as Level;
      this.#onDemoted();
    }
  }

  /** Where a run stands; undefined: it has none. */
  standingOf(session: string, agent: string | null): { level: TurnClass; usedMs: number } | undefined {
    const run = this.#runs.peek(nameOf(session, agent));
    return run === undefined ? undefined : { level: TURN_CLASSES[run.level], usedMs: run.usedMs };
  }

  /** As it was saved. */
  restore(session: string, agent: string | null, level: TurnClass, usedMs: number): void {
    this.#runs.set(nameOf(session, agent), { level: TURN_CLASSES.indexOf(level) as Level, usedMs });
  }

  /** Its runs are over: what comes begins anew. */
  forget(session: string): void {
    for (const [key] of [...this.#runs.entries()]) {
      if (key === session || key.startsWith(`${session}\n`)) this.#runs.delete(key);
    }
  }
}

/** Subagents of a session run beside it, each for itself. */
function keyOf({ session, agent }: Turn): string {
  return nameOf(session, agent ?? null);
}

function nameOf(session: string, agent: string | null): string {
  return agent === null ? session : `${session}\n${agent}`;
}
