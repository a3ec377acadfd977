// SPDX-License-Identifier: Apache-2.0
import { TURN_CLASSES, type TurnClass } from '../scheduler/types.ts';
import { generator } from './random.ts';

/**
 * A load of the AgentRM paper (Tables I to V). Turns, agents, hang rates, the window of the burst and the length of
 * the cascade are the paper's; the rest it does not give, and it was fitted to the rows of its baselines.
 */
export interface Scenario {
  readonly turns: number;
  readonly agents: number;
  /** Turns come at any time of it alike. */
  readonly windowMs: number;
  readonly lanes: number;
  /** Exponential, cut off at the longest. */
  readonly meanServiceMs: number;
  readonly longestServiceMs: number;
  /** Whether a turn hangs is decided when it is sent. @param atMs since the start. */
  readonly hangShare: (atMs: number) => number;
  /** What hangs does so for a time between these, unless somebody ends it. */
  readonly hangMs: readonly [shortest: number, longest: number];
}

const always = (share: number) => () => share;
const CASCADE_PERIOD_MS = 120_000;

export const SCENARIOS = {
  normal: {
    turns: 27,
    agents: 3,
    windowMs: 290_000,
    lanes: 1,
    meanServiceMs: 2_000,
    longestServiceMs: 6_000,
    hangShare: always(0.05),
    hangMs: [40_000, 120_000],
  },
  high: {
    turns: 280,
    agents: 10,
    windowMs: 480_000,
    lanes: 4,
    meanServiceMs: 8_300,
    longestServiceMs: 40_000,
    hangShare: always(0.1),
    hangMs: [30_000, 127_000],
  },
  burst: {
    turns: 30,
    agents: 5,
    windowMs: 3_000,
    lanes: 4,
    meanServiceMs: 6_000,
    longestServiceMs: 12_000,
    hangShare: always(0.08),
    hangMs: [10_000, 45_000],
  },
  faulty: {
    turns: 63,
    agents: 5,
    windowMs: 300_000,
    lanes: 4,
    meanServiceMs: 14_000,
    longestServiceMs: 60_000,
    hangShare: always(0.3),
    hangMs: [60_000, 184_000],
  },
  cascade: {
    turns: 149,
    agents: 5,
    windowMs: 600_000,
    lanes: 4,
    meanServiceMs: 8_300,
    longestServiceMs: 40_000,
    // The paper: between 5 and 40 %. The upper half of a sine, because the mean of a whole one would give a third
    // more hangs than the 25 of its table.
    hangShare: (atMs) => 0.05 + 0.35 * Math.max(0, Math.sin((2 * Math.PI * atMs) / CASCADE_PERIOD_MS)),
    hangMs: [10_000, 103_000],
  },
} as const satisfies Record<string, Scenario>;

export type ScenarioName = keyof typeof SCENARIOS;
export const SCENARIO_NAMES = Object.keys(SCENARIOS) as readonly ScenarioName[];

/** Interactive, subagent, background. */
const CLASS_SHARES = [0.4, 0.4, 0.2] as const;
/** Half of all retries are served (the paper, section IV-B2). */
const RETRY_SUCCESS = 0.5;
/** More retries than any policy has. */
const RETRY_COINS = 4;
const SHORTEST_SERVICE_MS = 200;

/** One turn of a load, with everything that chance decides: every policy meets the same. */
export interface LoadTurn {
  readonly index: number;
  readonly arrivalMs: number;
  readonly agent: number;
  readonly class: TurnClass;
  readonly serviceMs: number;
  /** It hangs if this is below the scenario's share at the time. */
  readonly hangDraw: number;
  readonly hangMs: number;
  /** Whether its first, second, … retry is served. */
  readonly retryServed: readonly boolean[];
}

/** The turns of a scenario in the order of their arrival. */
export function loadOf(scenario: Scenario, seed: number): LoadTurn[] {
  const random = generator(seed);
  const [shortest, longest] = scenario.hangMs;
  const turns = Array.from({ length: scenario.turns }, () => ({
    arrivalMs: random() * scenario.windowMs,
    agent: Math.floor(random() * scenario.agents),
    class: classOf(random()),
    serviceMs: truncatedExponential(random(), scenario),
    hangDraw: random(),
    hangMs: shortest + random() * (longest - shortest),
    retryServed: Array.from({ length: RETRY_COINS }, () => random() < RETRY_SUCCESS),
  }));
  return turns.sort((a, b) => a.arrivalMs - b.arrivalMs).map((turn, index) => ({ ...turn, index }));
}

function classOf(draw: number): TurnClass {
  const [interactive, subagent] = CLASS_SHARES;
  return TURN_CLASSES[draw < interactive ? 0 : draw < interactive + subagent ? 1 : 2];
}

/** By the inverse of the distribution function of an exponential that is known not to exceed the longest. */
function truncatedExponential(draw: number, { meanServiceMs, longestServiceMs }: Scenario): number {
  const below = 1 - Math.exp(-longestServiceMs / meanServiceMs);
  return Math.max(SHORTEST_SERVICE_MS, -meanServiceMs * Math.log(1 - draw * below));
}
