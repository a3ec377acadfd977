// SPDX-License-Identifier: Apache-2.0
// The loads of the AgentRM paper on our scheduler, beside FIFO, round robin, a priority queue and the paper's own
// queue as its text describes it, beside what the paper printed; whether the goals are reached; and what one greedy
// agent takes from nine others. Simulated: the numbers are the same on every machine.

import { FifoQueue } from '../../daemon/sim/baselines.ts';
import { measureScenario, type SimResult } from '../../daemon/sim/measure.ts';
import { POLICIES, type Policy, type Preset } from '../../daemon/sim/policies.ts';
import { SCENARIO_NAMES, type ScenarioName } from '../../daemon/sim/scenarios.ts';
import { firstSeeds, SEEDS } from '../../daemon/sim/seeds.ts';
import { fairLoad } from '../lib/fair-load.ts';
import { count, record } from './record.ts';
import { median } from './stats.ts';

const seeds = count('SEEDS', SEEDS.length);
const fairRuns = count('FAIR_RUNS', 20);

/** A row of the paper's Tables I to V. */
export interface PaperRow {
  readonly p95Ms: number;
  readonly throughputPerMin: number;
  readonly zombies: number;
  readonly avgHoldMs: number;
  readonly laneWasteMs: number;
  readonly recovered: number;
  readonly starved: number;
  readonly lagsOver30s: number;
}

type PaperPolicy = 'fifo' | 'rr' | 'pq' | 'mlfq';

/** What the paper printed (arXiv 2603.13110, section VI-B); `mlfq` is its AgentRM-MLFQ. */
export const paperTables: Readonly<Record<ScenarioName, Readonly<Record<PaperPolicy, PaperRow>>>> = {
  normal: {
    fifo: row(70_008, 5.6, 1, 80_500, 81_000, 0, 2, 6),
    rr: row(134_000, 5.4, 1, 80_500, 81_000, 0, 13, 18),
    pq: row(70_008, 5.6, 1, 80_500, 81_000, 0, 2, 6),
    mlfq: row(4_495, 5.6, 0, 0, 0, 1, 0, 0),
  },
  high: {
    fifo: row(640_439, 14.6, 29, 78_300, 2_272_000, 0, 274, 277),
    rr: row(764_539, 14.9, 29, 78_300, 2_272_000, 0, 276, 278),
    pq: row(658_744, 14.5, 29, 78_300, 2_272_000, 0, 220, 238),
    mlfq: row(323_001, 24.5, 7, 20_000, 140_000, 22, 0, 269),
  },
  burst: {
    fifo: row(50_431, 31.8, 1, 33_800, 34_000, 0, 0, 10),
    rr: row(44_963, 25.8, 1, 33_800, 34_000, 0, 0, 9),
    pq: row(51_844, 32, 1, 33_800, 34_000, 0, 0, 9),
    mlfq: row(47_058, 31.9, 0, 0, 0, 2, 0, 8),
  },
  faulty: {
    fifo: row(562_771, 4.1, 20, 122_100, 2_441_000, 0, 55, 61),
    rr: row(558_857, 4, 20, 122_100, 2_441_000, 0, 55, 60),
    pq: row(562_771, 4.1, 20, 122_100, 2_441_000, 0, 55, 61),
    mlfq: row(77_524, 11, 5, 19_400, 97_000, 15, 0, 38),
  },
  cascade: {
    fifo: row(90_236, 13, 15, 66_400, 996_000, 0, 7, 67),
    rr: row(269_569, 10.7, 15, 66_400, 996_000, 0, 81, 123),
    pq: row(93_376, 13.1, 15, 66_400, 996_000, 0, 8, 64),
    mlfq: row(43_190, 14.4, 4, 20_000, 80_000, 21, 0, 22),
  },
};

function row(
  p95Ms: number,
  throughputPerMin: number,
  zombies: number,
  avgHoldMs: number,
  laneWasteMs: number,
  recovered: number,
  starved: number,
  lagsOver30s: number,
): PaperRow {
  return { p95Ms, throughputPerMin, zombies, avgHoldMs, laneWasteMs, recovered, starved, lagsOver30s };
}

export interface Goal {
  readonly goal: string;
  readonly wanted: number;
  readonly found: number;
  readonly reached: boolean;
}

export interface FairnessResult {
  readonly policy: 'agentrm' | 'fifo';
  /** Of ten agents' tokens, one of them greedy; median of the runs. */
  readonly jain: number;
  /** The other agents' P95 with the greedy one, over that without. */
  readonly othersP95Ratio: number;
}

export interface SimResults {
  readonly runs: readonly SimResult[];
  readonly paper: typeof paperTables;
  readonly goals: readonly Goal[];
  readonly fairness: readonly FairnessResult[];
}

const presetsOf = (policy: Policy): readonly Preset[] =>
  // Without a reaper the presets are one.
  policy === 'mlfq' || policy === 'agentrm' ? ['paper', 'table', 'honest'] : ['table'];

const runs = SCENARIO_NAMES.flatMap((scenario) =>
  POLICIES.flatMap((policy) =>
    presetsOf(policy).map((preset) => measureScenario(scenario, policy, preset, seeds)),
  ),
);
for (const scenario of SCENARIO_NAMES) printScenario(scenario);

const goals = checkGoals();
console.log('\ngoals:');
for (const { goal, wanted, found, reached } of goals) {
  console.log(`  ${reached ? 'reached' : 'MISSED '}  ${goal} ${wanted}: ${found}`);
}

const fairness = (['agentrm', 'fifo'] as const).map(fairnessOf);
console.log('\none greedy agent among ten:');
for (const { policy, jain, othersP95Ratio } of fairness) {
  console.log(
    `  ${policy.padEnd(8)} Jain ${jain.toFixed(3)}, P95 of the others ×${othersP95Ratio.toFixed(2)}`,
  );
}

const results: SimResults = { runs, paper: paperTables, goals, fairness };
record('sim', { seeds, fairRuns }, results);
if (goals.some(({ reached }) => !reached)) process.exitCode = 1;

function of(scenario: ScenarioName, policy: Policy, preset: Preset): SimResult {
  const found = runs.find(
    (run) => run.scenario === scenario && run.policy === policy && run.preset === preset,
  );
  if (found === undefined) throw new Error(`no run of ${scenario} ${policy} ${preset}`);
  return found;
}

function checkGoals(): Goal[] {
  const faulty = of('faulty', 'agentrm', 'table');
  const honest = of('faulty', 'agentrm', 'honest');
  const fifo = of('faulty', 'fifo', 'table');
  const high = of('high', 'agentrm', 'table');
  const most = (goal: string, found: number, wanted: number) => ({
    ...{ goal: `${goal} ≤`, wanted, found, reached: found <= wanted },
  });
  const least = (goal: string, found: number, wanted: number) => ({
    ...{ goal: `${goal} ≥`, wanted, found, reached: found >= wanted },
  });
  return [
    most('faulty, table: P95, ms', faulty.p95Ms.median, 60_000),
    least('faulty, table: turns a minute', faulty.throughputPerMin.median, 11.2),
    most('faulty, table: zombies', faulty.zombies.median, 5),
    least('faulty, honest: turns a minute', honest.throughputPerMin.median, 10.4),
    most('faulty, honest: P95, ms', honest.p95Ms.median, 75_000),
    most(
      "faulty, honest: lane time without progress, of FIFO's",
      honest.laneWasteTotalMs.median / fifo.laneWasteTotalMs.median,
      0.2,
    ),
    least('high, table: turns a minute', high.throughputPerMin.median, 23.5),
    most('high, table: zombies', high.zombies.median, 7),
    most('high, table: P95 of interactive turns, ms', high.interactiveP95Ms.median, 50_000),
    most('high, table: longest wait of a background turn, ms', high.maxBackgroundWaitMs.median, 340_000),
  ];
}

function fairnessOf(policy: 'agentrm' | 'fifo'): FairnessResult {
  const discipline = policy === 'fifo' ? { discipline: () => new FifoQueue() } : {};
  const pairs = firstSeeds(fairRuns).map((seed) => {
    const run = (firstAgentTurns: number) => fairLoad({ firstAgentTurns, seed, minutes: 60, ...discipline });
    return { calm: run(2), greedy: run(40) };
  });
  return {
    policy,
    jain: median(pairs.map(({ greedy }) => greedy.jain)),
    othersP95Ratio: median(pairs.map(({ calm, greedy }) => greedy.othersP95Ms / calm.othersP95Ms)),
  };
}

function printScenario(scenario: ScenarioName): void {
  console.log(`\n${scenario}`);
  const seconds = (ms: number) => (ms / 1000).toFixed(1).padStart(7);
  const line = (name: string, one: PaperRow, more = '') =>
    console.log(
      `  ${name.padEnd(15)} P95${seconds(one.p95Ms)} s ${one.throughputPerMin.toFixed(1).padStart(6)}/min` +
        ` zombies ${one.zombies.toFixed(0).padStart(3)} hold${seconds(one.avgHoldMs)} waste${seconds(one.laneWasteMs)}` +
        ` recovered ${one.recovered.toFixed(0).padStart(3)} starved ${one.starved.toFixed(0).padStart(3)}` +
        ` lags ${one.lagsOver30s.toFixed(0).padStart(3)}${more}`,
    );
  for (const [policy, paper] of Object.entries(paperTables[scenario])) line(`paper ${policy}`, paper);
  for (const run of runs) {
    if (run.scenario !== scenario) continue;
    const medians = Object.fromEntries(
      Object.entries(run).map(([name, value]) => [name, typeof value === 'object' ? value.median : value]),
    ) as unknown as PaperRow;
    const more =
      ` | lost in all${seconds(run.laneWasteTotalMs.median)} interactive P95${seconds(run.interactiveP95Ms.median)}` +
      ` background wait${seconds(run.maxBackgroundWaitMs.median)}`;
    const reaper = run.policy === 'mlfq' || run.policy === 'agentrm';
    line(reaper ? `${run.policy} ${run.preset}` : run.policy, medians, more);
  }
}
