// SPDX-License-Identifier: Apache-2.0
import type { Idle } from './idle-wait.ts';
import { TURN_CLASSES, type Turn, type TurnClass } from './types.ts';

/** Where a turn is, as its session counts it. */
export type TurnPlace = 'waiting' | 'running';

/** A run that no answer has ended yet. */
export interface OpenRun {
  /** Within the session; '' is its user's own. */
  readonly agent: string;
  readonly startedAtMs: number;
  /** Whose answer ends it: a small question to another model on the way is no part of it. */
  modelClass: string;
  /** A turn of it had a lane. */
  began: boolean;
}

/** A session as its turns show it. */
export interface Agent extends Idle<Agent> {
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
}

export function newAgent(session: string, nowMs: number): Agent {
  const never = Number.NEGATIVE_INFINITY;
  return {
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
}

/** It has a turn. */
export function isBusy({ turns }: Agent): boolean {
  return turns.waiting + turns.running > 0;
}

/** Whether all that was ever seen of it is one turn that waits. */
export function isNew({ granted, finished, turns }: Agent): boolean {
  return granted + finished === 0 && turns.waiting + turns.running === 1;
}

/** The best class of its turns that came within so long before now; undefined: none did. */
export function bestClass({ cameMs }: Agent, withinMs: number, nowMs: number): TurnClass | undefined {
  return TURN_CLASSES.find((_, index) => (cameMs[index] as number) >= nowMs - withinMs);
}

/** @param name within the session; '' is its user's own. */
export function runOf({ runs }: Agent, name: string): OpenRun | undefined {
  return runs.find(({ agent }) => agent === name);
}

/** A turn of a run is over. @param endsRun whether its answer was the last of it; undefined: it does not say. */
export function turnOfRunLeft(agent: Agent, turn: Turn, endsRun: boolean | undefined): void {
  const run = runOf(agent, turn.agent ?? '');
  if (run === undefined) return;
  const ended = endsRun === true && (!turn.runStart || run.modelClass === turn.modelClass);
  // Or its client went, or was turned away, before anything of it ran.
  if (ended || (!run.began && !isBusy(agent))) agent.runs.splice(agent.runs.indexOf(run), 1);
}
