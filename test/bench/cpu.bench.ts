// SPDX-License-Identifier: Apache-2.0
// What a background call that burns all CPUs costs an interactive one: how long its work takes as a multiple of the CPU
// time that it needs (what else the machine does meets both alike), and how late its timers are; by how the two
// sessions share the CPUs.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { SessionRecord } from '../../daemon/control/types.ts';
import { agentrmBash, TestDaemon, until } from '../lib/daemon.ts';
import { chosen, count, record } from './record.ts';
import { type Interval, interval, median, type Summary, summary } from './stats.ts';
import { output } from './tools.ts';

const rounds = count('ROUNDS', 20, 10);
const cores = availableParallelism();
/** Turns of an empty loop that a worker makes: half a second where it was written, natively and emulated. */
const turns = count('TURNS', 20_000_000, 3_000_000);
/** Timers of 5 ms that are waited for in a round. */
const timers = 100;

/** The class of the burner, and what is written over that of its session: what the default was chosen from. */
const arms = {
  alone: null,
  equal: { burner: 'interactive', files: {} },
  agentrm: { burner: 'background', files: {} },
  'cpu.weight 10': { burner: 'background', files: { 'cpu.weight': '10' } },
  'cpu.weight 1': { burner: 'background', files: { 'cpu.weight': '1' } },
  'cpu.idle': { burner: 'background', files: { 'cpu.idle': '1' } },
} as const;
type Arm = keyof typeof arms;

export interface CpuResults {
  readonly cores: number;
  readonly arms: readonly {
    readonly arm: Arm;
    /** Time over CPU time of one worker, and of the slowest of as many as there are cores. */
    readonly oneRatio: number;
    readonly oneRatioInterval: Interval;
    readonly allRatio: number;
    readonly allRatioInterval: Interval;
    /** By how much timers came later than they should. */
    readonly lateMs: Summary;
  }[];
}

const WORK = `$s = clock_gettime(CLOCK_MONOTONIC); $c = clock_gettime(CLOCK_PROCESS_CPUTIME_ID);
for ($i = 0; $i < ${turns}; $i++) {}
$c = clock_gettime(CLOCK_PROCESS_CPUTIME_ID) - $c; printf "%.5f\\n", (clock_gettime(CLOCK_MONOTONIC) - $s) / $c`;
const TIMERS = `for (1..${timers}) { $s = clock_gettime(CLOCK_MONOTONIC); select undef, undef, undef, 0.005;
printf "%.3f\\n", 1000 * (clock_gettime(CLOCK_MONOTONIC) - $s) - 5 }`;

interface Round {
  readonly one: number;
  readonly all: number;
  readonly late: readonly number[];
}

const wanted = chosen('ARMS', Object.keys(arms) as Arm[]);
const found = new Map<Arm, Round[]>(wanted.map((arm) => [arm, []]));
const daemon = await new TestDaemon().start();
try {
  for (let round = 0; round < rounds; round += 1) {
    for (const arm of wanted) found.get(arm)?.push(await measure(arm));
    if (round > 0) report(round + 1);
  }
} finally {
  await daemon.close();
}

function report(done: number): void {
  const results = [...found].map(([arm, of]) => {
    const one = (some: readonly Round[]) => median(some.map((round) => round.one));
    const all = (some: readonly Round[]) => median(some.map((round) => round.all));
    return {
      arm,
      oneRatio: one(of),
      oneRatioInterval: interval(of, one),
      allRatio: all(of),
      allRatioInterval: interval(of, all),
      lateMs: summary(of.flatMap(({ late }) => late)),
    };
  });
  record('cpu', { rounds: done, turns, timers }, { cores, arms: results } satisfies CpuResults);
  for (const { arm, oneRatio, allRatio, lateMs } of results) {
    const late = `${lateMs.p50.toFixed(2)} ${lateMs.p99.toFixed(2)} ${lateMs.max.toFixed(2)}`;
    console.log(`${done} ${arm}: one ${oneRatio.toFixed(4)}, all ${allRatio.toFixed(4)}, late ${late} ms`);
  }
}

async function measure(arm: Arm): Promise<Round> {
  const burner = await burn(arm);
  try {
    const all = (await run(WORK, cores)).reduce((a, b) => Math.max(a, b));
    const [one = Number.NaN] = await run(WORK, 1);
    return { one, all, late: await run(TIMERS, 1) };
  } finally {
    if (burner !== undefined) await end(burner);
  }
}

/** So many of a program at a time in one call; the numbers that they print. */
async function run(program: string, times: number): Promise<number[]> {
  const perl = `perl -MTime::HiRes=clock_gettime,CLOCK_MONOTONIC,CLOCK_PROCESS_CPUTIME_ID -e '${program}'`;
  const { stdout } = await output(
    [agentrmBash, '-c', `for ((i = 0; i < ${times}; i++)); do ${perl} & done; wait`],
    { env: daemon.env({ AGENTRM_SESSION: 'user' }) },
  );
  return stdout.trim().split('\n').map(Number);
}

/** Twice as many processes as there are cores, which do nothing else than run. */
async function burn(arm: Arm): Promise<ChildProcess | undefined> {
  const how = arms[arm];
  if (how === null) return undefined;
  const session = `burner-${arm.replace(' ', '-')}`;
  const loop = `for ((i = 0; i < ${2 * cores}; i++)); do perl -e 'print "."; close STDOUT; 1 while 1' & done; wait`;
  const child = spawn(agentrmBash, ['-c', loop], {
    env: daemon.env({ AGENTRM_SESSION: session, AGENTRM_INTENT: `class=${how.burner}` }),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  for (let started = 0; started < 2 * cores; ) {
    const [chunk] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
    started += chunk.length;
  }
  const { sessions } = await daemon.get<{ sessions: SessionRecord[] }>('/v1/sessions');
  const cgroup = sessions.find(({ id }) => id === session)?.cgroup;
  for (const [file, value] of Object.entries(how.files)) writeFileSync(`${cgroup}/${file}`, value);
  return child;
}

/** Its wrapper is killed, and with it the call. */
async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, 'close');
  child.kill('SIGKILL');
  await exited;
  await until(async () => (await daemon.liveCalls()).length === 0, 'the burner has ended');
}
