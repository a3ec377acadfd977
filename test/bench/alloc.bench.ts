// SPDX-License-Identifier: Apache-2.0
// What the BPF programs cost a command that stays within its limits: the time for mapping, touching and unmapping
// memory in a call's cgroup, with them attached and with them gone, in turn; and what giving up huge pages costs.
import { Cgroup, Lab } from '../kernel/bpf-lab.ts';
import { loadProgram } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { type Interval, interval, median, type Summary, summary } from './stats.ts';
import { MiB, output } from './tools.ts';

const pairs = count('PAIRS', 30);
/** Of 10 MB each. */
const allocations = count('ALLOCATIONS', 300, 100);
const highMiB = 1024;

interface Round {
  readonly withBpfMs: number;
  readonly withoutMs: number;
  readonly hugePagesMs: number;
}

export interface AllocResults {
  readonly withBpfMs: Summary;
  readonly withoutMs: Summary;
  readonly hugePagesMs: Summary;
  /** Median over the pairs of the time with BPF over the time without, less 1. */
  readonly lossShare: number;
  readonly lossShareInterval: Interval;
  /** Time with small pages over time with huge ones. */
  readonly smallToHugePages: number;
  readonly smallToHugePagesInterval: Interval;
  readonly rounds: readonly Round[];
}

const rounds: Round[] = [];
for (let pair = 0; pair < pairs; pair += 1) {
  // What comes first changes from pair to pair: the machine drifts.
  const round: Partial<Record<keyof Round, number>> = {};
  for (const arm of pair % 2
    ? (['withoutMs', 'withBpfMs'] as const)
    : (['withBpfMs', 'withoutMs'] as const)) {
    round[arm] = await (arm === 'withBpfMs' ? inCall() : inPlainCgroup());
  }
  round.hugePagesMs = await touch(undefined, ['--thp']);
  rounds.push(round as Round);
  recordAll();
  console.log(round, `loss ${(100 * loss(rounds)).toFixed(2)} %`);
}

function loss(some: readonly Round[]): number {
  return median(some.map(({ withBpfMs, withoutMs }) => withBpfMs / withoutMs - 1));
}

function hugePageGain(some: readonly Round[]): number {
  return median(some.map(({ withoutMs, hugePagesMs }) => withoutMs / hugePagesMs));
}

function recordAll(): void {
  const results: AllocResults = {
    withBpfMs: summary(rounds.map(({ withBpfMs }) => withBpfMs)),
    withoutMs: summary(rounds.map(({ withoutMs }) => withoutMs)),
    hugePagesMs: summary(rounds.map(({ hugePagesMs }) => hugePagesMs)),
    lossShare: loss(rounds),
    lossShareInterval: interval(rounds, loss),
    smallToHugePages: hugePageGain(rounds),
    smallToHugePagesInterval: interval(rounds, hugePageGain),
    rounds,
  };
  record('alloc', { pairs: rounds.length, allocations }, results);
}

/** As under the daemon: programs attached, heartbeat, sampler, policy. */
async function inCall(): Promise<number> {
  const lab = new Lab();
  try {
    lab.bpf.samplerStart();
    return await warmThenTouch(lab.call(highMiB).cgroup);
  } finally {
    await lab.close();
  }
}

/** The same cgroup as `inCall` has, at the same depth, with no program in the kernel. */
async function inPlainCgroup(): Promise<number> {
  const root = new Cgroup('/sys/fs/cgroup/bench').delegate();
  try {
    const cgroup = root.child('s1').delegate().child('c1');
    cgroup.write('memory.high', highMiB * MiB);
    return await warmThenTouch(cgroup);
  } finally {
    await root.remove();
  }
}

/** Attaching and detaching patches the kernel's code, which an emulator then has to translate anew. */
async function warmThenTouch(cgroup: Cgroup): Promise<number> {
  await touch(cgroup, [], Math.ceil(allocations / 5));
  return await touch(cgroup);
}

/** @returns milliseconds, without the start of the process */
async function touch(
  cgroup: Cgroup | undefined,
  options: readonly string[] = [],
  times = allocations,
): Promise<number> {
  const enter = cgroup === undefined ? '' : `echo $$ >${cgroup.path}/cgroup.procs && `;
  const load = [loadProgram, ...options, '--bytes', '10000000', 'rounds', `${times}`].join(' ');
  const { stdout } = await output(['/bin/sh', '-c', `${enter}exec ${load}`]);
  return Number(stdout) / 1e6;
}
