// SPDX-License-Identifier: Apache-2.0
// Recorded sessions under a common limit, as AgentCgroup's evaluation replayed them: who survives, and who is slowed
// by how much, with nobody, with fixed limits, with the low ones frozen until the high one is done, and with AgentRM.
//
// AGENTRM_TRACES names the directory of the traces (`agentrm replay --help` says of which form), by the names below.
// Of everything, BENCH_RUNS rounds; BENCH_EXPERIMENTS=E1,E4 and BENCH_REPLAY_ARMS=none,agentrm choose, and replace
// only what was measured of these before. BENCH_SPEED is for a clock that does not skip what nobody does: there a round
// takes minutes at the speed at which the sessions were recorded.
import { existsSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { native } from '../../daemon/kernel/native.ts';
import { ARMS, type Arm, defaultClasses } from '../../daemon/replay/arms.ts';
import { measureAlone, type RunRecord, runOnce } from '../../daemon/replay/experiment.ts';
import type { Session } from '../../daemon/replay/run.ts';
import { readTrace, type Trace } from '../../daemon/replay/trace.ts';
import { chosen, count, earlier, record } from './record.ts';
import { type Step, summedPeakBytes } from './replay/sum.ts';

const MB = 1e6;

/**
 * All in decimal megabytes, as the traces are. AgentCgroup's replay took its traces' megabytes for mebibytes, and set
 * limits in these: with one unit throughout, sessions and limits have the same proportions as there.
 */
interface Experiment {
  readonly traces: readonly string[];
  readonly limitBytes: number | 'peak';
  readonly baseBytes: number;
  readonly speed: number;
  /** Of trace time, from one session to the next. */
  readonly staggerMs: number;
  /** memory.high of the low sessions in the arm `high`. */
  readonly lowHighBytes?: number;
  readonly arms: readonly Arm[];
  /** Whether it is measured how long each session takes alone. */
  readonly alone: boolean;
}

const dask = 'dask__dask-11628';
const github3 = 'sigmavirus24__github3.py-673';
const preCommit = 'pre-commit__pre-commit-2524';
const faker = 'joke2k__faker-1520';
const prefab = 'prefab-cloud__prefab-cloud-python-62';
const dask5510 = 'dask__dask-5510-local';

const paper = { baseBytes: 100 * MB, speed: 1, staggerMs: 0, arms: ARMS, alone: true } as const;
const experiments: Readonly<Record<string, Experiment>> = {
  // memory.high as there: 400 of the 406 that each of them was known to need.
  E1: { ...paper, traces: [dask, github3, github3], limitBytes: 1100 * MB, lowHighBytes: 400 * MB },
  E2: { ...paper, traces: [dask, github3, github3], limitBytes: 1300 * MB, lowHighBytes: 400 * MB },
  E3: { ...paper, traces: [preCommit, dask, faker], limitBytes: 4096 * MB, lowHighBytes: 320 * MB },
  E4: { ...paper, traces: [preCommit, dask, faker], limitBytes: 2560 * MB, lowHighBytes: 320 * MB },
  // 3 s apart their peaks meet most: the sum is at its highest for any whole number of seconds but 2.
  E8: {
    traces: Array.from({ length: 32 }, (_, index) => {
      return [dask, dask5510, faker, preCommit, prefab, github3][index % 6] as string;
    }),
    limitBytes: 'peak',
    baseBytes: 0,
    speed: 1,
    staggerMs: 3000,
    arms: ['none', 'agentrm'],
    alone: false,
  },
};
/** What 32 sessions have together, over the highest sum of what they want at the same time. */
const OVER_PEAK = 1.1;

export interface ReplayResult {
  readonly experiment: string;
  readonly arm: Arm;
  /** When its last run ended, ISO 8601. */
  readonly date: string;
  readonly limitBytes: number;
  /** The highest sum of what all sessions want at the same time, if none is held back. */
  readonly summedPeakBytes: number;
  readonly runs: readonly RunRecord[];
}
export type ReplayResults = readonly ReplayResult[];

const rounds = count('RUNS', 20, 3);
const directory = process.env.AGENTRM_TRACES;
if (directory === undefined) console.log('skipped: AGENTRM_TRACES names no directory of traces');
else for (const name of chosen('EXPERIMENTS', Object.keys(experiments))) await measure(name, directory);

async function measure(name: string, directory: string): Promise<void> {
  const usual = experiments[name] as Experiment;
  const speed = count('SPEED', usual.speed);
  const experiment = { ...usual, speed };
  const { baseBytes, lowHighBytes } = experiment;
  const missing = experiment.traces.find((trace) => !existsSync(fileOf(directory, trace)));
  if (missing !== undefined) return console.log(`${name} skipped: no ${fileOf(directory, missing)}`);
  const sessions = sessionsOf(experiment, directory);
  const peak = peakOf(experiment, sessions);
  const limitBytes = experiment.limitBytes === 'peak' ? Math.ceil(peak * OVER_PEAK) : experiment.limitBytes;
  if (limitBytes > totalmem()) {
    return console.log(
      `${name} skipped: needs ${Math.ceil(limitBytes / MB)} MB, ${totalmem() / MB} are here`,
    );
  }
  const common = { sessions, speed, baseBytes, signal: new AbortController().signal };
  const high = lowHighBytes === undefined ? {} : { lowHighBytes };
  const arms = chosen('REPLAY_ARMS', ARMS).filter((arm) => experiment.arms.includes(arm));
  const measured = new Map<Arm, RunRecord[]>(arms.map((arm) => [arm, []]));
  for (let round = 1; round <= rounds; round += 1) {
    // Anew in each round, as the machine drifts.
    const alone = experiment.alone ? await measureAlone(native(), common) : new Map<Trace, number>();
    for (const [arm, runs] of measured) {
      runs.push(await runOnce(native(), { ...common, ...high, arm, limitBytes }, round, alone));
      const date = new Date().toISOString();
      keep({ experiment: name, arm, date, limitBytes, summedPeakBytes: peak, runs });
      console.log(`${name}, ${arm}, round ${round}: ${shown(runs.at(-1))}`);
    }
  }
}

/** Puts a result in the place of what was measured of the same before. */
function keep(result: ReplayResult): void {
  const others = (earlier<ReplayResults>('replay') ?? []).filter(
    ({ experiment, arm }) => experiment !== result.experiment || arm !== result.arm,
  );
  const all = [...others, result].sort(
    (a, b) => a.experiment.localeCompare(b.experiment) || ARMS.indexOf(a.arm) - ARMS.indexOf(b.arm),
  );
  record('replay', { rounds }, all satisfies ReplayResults);
}

function shown(run: RunRecord | undefined): string {
  const sessions = run?.sessions ?? [];
  const times = sessions.map(({ totalMs, aloneMs }) =>
    totalMs === null
      ? 'dead'
      : `${(totalMs / 1000).toFixed(2)} s (${(totalMs / (aloneMs ?? Number.NaN)).toFixed(3)})`,
  );
  return `${sessions.filter(({ survived }) => survived).length} survive: ${times.join(', ')}`;
}

function fileOf(directory: string, trace: string): string {
  return join(directory, `${trace}.json`);
}

function sessionsOf({ traces, staggerMs, speed }: Experiment, directory: string): Session[] {
  const read = new Map(traces.map((name) => [name, readTrace(fileOf(directory, name))]));
  const classes = defaultClasses(traces.length);
  return traces.map((name, index) => ({
    name,
    trace: read.get(name) ?? [],
    class: classes[index] ?? 'background',
    delayMs: (index * staggerMs) / speed,
  }));
}

function peakOf({ baseBytes, speed }: Experiment, sessions: readonly Session[]): number {
  return summedPeakBytes(
    sessions.map(({ trace, delayMs }): Step[] =>
      trace.map(({ atMs, bytes }) => ({ atMs: delayMs + atMs / speed, bytes: bytes + baseBytes })),
    ),
  );
}
