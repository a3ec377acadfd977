// SPDX-License-Identifier: Apache-2.0
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type Measure, measureScenario, type SimResult } from '../sim/measure.ts';
import { POLICIES, type Policy, PRESETS, type Preset } from '../sim/policies.ts';
import { SCENARIO_NAMES, type ScenarioName } from '../sim/scenarios.ts';
import { SEEDS } from '../sim/seeds.ts';
import type { GlobalOptions } from './command.ts';
import { type Column, jsonLine, print, table } from './output.ts';

/** What they measure is kept until all are done, and more say nothing new. */
const MOST_SEEDS = 100_000;

interface SimOptions extends GlobalOptions {
  readonly scenario: ScenarioName;
  readonly policy: Policy;
  readonly preset: Preset;
  readonly seeds: number;
}

const columns: readonly Column[] = [
  { title: 'MEASURE' },
  { title: 'MEDIAN', align: 'right' },
  { title: 'P10', align: 'right' },
  { title: 'P90', align: 'right' },
];

/** What each measure is called, and in what unit it is shown. */
const labels: Readonly<Record<Measure, readonly [label: string, perUnit: number]>> = {
  p95Ms: ['P95 of the response time, s', 1000],
  throughputPerMin: ['turns a minute', 1],
  zombies: ['zombies', 1],
  avgHoldMs: ["a zombie's lane time, s", 1000],
  laneWasteMs: ['lane time of zombies, s', 1000],
  laneWasteTotalMs: ['lane time without progress, s', 1000],
  recovered: ['recovered by a retry', 1],
  starved: ['waited over 60 s', 1],
  lagsOver30s: ['took over 30 s', 1],
  interactiveP95Ms: ['P95 of interactive turns, s', 1000],
  maxBackgroundWaitMs: ['longest wait of a background turn, s', 1000],
};

export function define(command: Command): void {
  command
    .addOption(choice('--scenario <name>', 'the load', SCENARIO_NAMES, 'faulty'))
    .addOption(choice('--policy <name>', 'the order of the queue', POLICIES, 'agentrm'))
    .addOption(
      choice('--preset <name>', 'when a turn counts as hung, and what retries cost', PRESETS, 'table'),
    )
    .addOption(new Option('--seeds <number>', 'how many runs').argParser(seedCount).default(SEEDS.length))
    .addHelpText(
      'after',
      '\nPlays a load of the AgentRM paper on the scheduler of the proxy. Needs no daemon.',
    )
    .action(async () => {
      const { json, scenario, policy, preset, seeds } = command.optsWithGlobals<SimOptions>();
      const result = measureScenario(scenario, policy, preset, seeds);
      if (json) await print(jsonLine(result));
      else await printTable(result);
    });
}

async function printTable(result: SimResult): Promise<void> {
  const { scenario, policy, preset, seeds } = result;
  await print(`${scenario}, ${policy}, preset ${preset}, ${seeds} ${seeds === 1 ? 'seed' : 'seeds'}`);
  const rows = (Object.keys(labels) as Measure[]).map((measure) => {
    const [label, perUnit] = labels[measure];
    const { median, p10, p90 } = result[measure];
    const cells = [median, p10, p90].map((value) => ({ text: (value / perUnit).toFixed(1) }));
    return [{ text: label }, ...cells];
  });
  for (const line of table(columns, rows)) await print(line);
}

function choice(flags: string, text: string, names: readonly string[], byDefault: string): Option {
  return new Option(flags, text).choices(names).default(byDefault);
}

function seedCount(text: string): number {
  const seeds = Number(text);
  if (!/^\d+$/.test(text) || seeds < 1 || seeds > MOST_SEEDS) {
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${MOST_SEEDS}.`);
  }
  return seeds;
}
