// SPDX-License-Identifier: Apache-2.0
import { simulate, type TurnRecord } from './engine.ts';
import type { Policy, Preset } from './policies.ts';
import { SCENARIOS, type ScenarioName } from './scenarios.ts';
import { firstSeeds } from './seeds.ts';

/** What is measured of one run, in the words of the paper's tables as far as it has them. */
export interface RunMeasures {
  /** From submission to end, of all turns, whatever became of them. */
  readonly p95Ms: number;
  /** All turns over the time until the last has ended: the paper's own rows fit no other count. */
  readonly throughputPerMin: number;
  /** Ended by the reaper; without one, hanging on a lane for more than 30 s. */
  readonly zombies: number;
  /** Of a zombie's lane, all its attempts together; 0 if there is none. */
  readonly avgHoldMs: number;
  /** Lane time of zombies: the paper's waste. */
  readonly laneWasteMs: number;
  /** All lane time without progress, of recovered turns too. */
  readonly laneWasteTotalMs: number;
  /** Hung and then served by a retry. */
  readonly recovered: number;
  /** Waited over 60 s for lanes. */
  readonly starved: number;
  /** Took over 30 s. */
  readonly lagsOver30s: number;
  readonly interactiveP95Ms: number;
  /** The longest that a background turn waited for lanes. */
  readonly maxBackgroundWaitMs: number;
}

export interface Spread {
  readonly median: number;
  readonly p10: number;
  readonly p90: number;
}

export type Measure = keyof RunMeasures;
export type SimResult = {
  readonly scenario: ScenarioName;
  readonly policy: Policy;
  readonly preset: Preset;
  readonly seeds: number;
} & { readonly [M in Measure]: Spread };

const ZOMBIE_MS = 30_000;
const STARVED_MS = 60_000;
const LAG_MS = 30_000;

/** Runs a scenario under a policy with the first so many seeds. */
export function measureScenario(
  scenario: ScenarioName,
  policy: Policy,
  preset: Preset,
  seeds: number,
): SimResult {
  const runs = firstSeeds(seeds).map((seed) =>
    measureRun(
      simulate(SCENARIOS[scenario], policy, preset, seed),
      policy === 'mlfq' || policy === 'agentrm',
    ),
  );
  const spread = (measure: Measure): Spread => {
    const values = runs.map((run) => run[measure]);
    return { median: quantile(values, 0.5), p10: quantile(values, 0.1), p90: quantile(values, 0.9) };
  };
  return {
    scenario,
    policy,
    preset,
    seeds: runs.length,
    p95Ms: spread('p95Ms'),
    throughputPerMin: spread('throughputPerMin'),
    zombies: spread('zombies'),
    avgHoldMs: spread('avgHoldMs'),
    laneWasteMs: spread('laneWasteMs'),
    laneWasteTotalMs: spread('laneWasteTotalMs'),
    recovered: spread('recovered'),
    starved: spread('starved'),
    lagsOver30s: spread('lagsOver30s'),
    interactiveP95Ms: spread('interactiveP95Ms'),
    maxBackgroundWaitMs: spread('maxBackgroundWaitMs'),
  };
}

/** @param reaper whether there was one: it decides what a zombie is. */
export function measureRun(records: readonly TurnRecord[], reaper: boolean): RunMeasures {
  const took = (record: TurnRecord) => record.endedAtMs - record.turn.arrivalMs;
  const count = (isOne: (record: TurnRecord) => boolean) => records.filter(isOne).length;
  const sum = (some: readonly TurnRecord[]) => some.reduce((lostMs, record) => lostMs + record.lostMs, 0);
  const ofClass = (name: string) => records.filter(({ turn }) => turn.class === name);
  const zombies = records.filter((record) => (reaper ? record.reaped : record.lostMs > ZOMBIE_MS));
  const makespanMs = Math.max(...records.map(({ endedAtMs }) => endedAtMs));
  const interactive = ofClass('interactive').map(took);
  return {
    p95Ms: quantile(records.map(took), 0.95),
    throughputPerMin: (records.length * 60_000) / makespanMs,
    zombies: zombies.length,
    avgHoldMs: zombies.length === 0 ? 0 : sum(zombies) / zombies.length,
    laneWasteMs: sum(zombies),
    laneWasteTotalMs: sum(records),
    recovered: count(({ hung, reaped, attempts }) => hung && !reaped && attempts > 1),
    starved: count(({ waitedMs }) => waitedMs > STARVED_MS),
    lagsOver30s: count((record) => took(record) > LAG_MS),
    // A class without turns has nothing to wait for.
    interactiveP95Ms: interactive.length === 0 ? 0 : quantile(interactive, 0.95),
    maxBackgroundWaitMs: Math.max(0, ...ofClass('background').map(({ waitedMs }) => waitedMs)),
  };
}

/** The value below which a share of the values lies, interpolated between the two nearest. */
function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}
