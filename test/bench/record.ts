// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';

export const resultsDir = fileURLToPath(new URL('results/', import.meta.url));

/** One file in test/bench/results. */
export interface BenchResult<R = unknown> {
  readonly benchmark: string;
  readonly machine: Machine;
  /** When it ended, ISO 8601. */
  readonly date: string;
  /** How many runs, rounds or calls: the defaults, or what BENCH_... of the environment said. */
  readonly counts: Readonly<Record<string, number>>;
  /** BENCH_NOTE of the environment: what else a reader should know, such as what the machine was doing beside it. */
  readonly note: string | null;
  readonly results: R;
}

export interface Machine {
  readonly arch: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  /** Whether the CPU is emulated: then bytes and ratios hold elsewhere, times do not. */
  readonly emulated: boolean;
  /** One-minute load average of this machine when the benchmark ended; of a guest, without its host's. */
  readonly load: number;
}

const machine = {
  arch: process.arch,
  cores: availableParallelism(),
  memoryBytes: totalmem(),
  kernel: release(),
  emulated: isEmulated(),
};

/**
 * A count, from the environment if it is there.
 * @param name such as RUNS, for BENCH_RUNS
 * @param emulated how often where the CPU is emulated: a call of the wrapper takes a second there
 * @throws Error if the variable is not a whole number from 1
 */
export function count(name: string, usual: number, emulated = usual): number {
  const given = process.env[`BENCH_${name}`];
  if (given === undefined) return machine.emulated ? emulated : usual;
  if (!/^[1-9]\d*$/.test(given)) throw new Error(`BENCH_${name}=${given}: not a whole number from 1`);
  return Number(given);
}

/**
 * Some of many, from the environment if it is there.
 * @param name such as ARMS, for BENCH_ARMS=none,static
 * @throws Error if the variable names another one
 */
export function chosen<T extends string>(name: string, all: readonly T[]): readonly T[] {
  const given = process.env[`BENCH_${name}`]?.split(',');
  const unknown = given?.find((one) => !all.some((known) => known === one));
  if (unknown !== undefined) throw new Error(`BENCH_${name}: ${unknown} is none of ${all.join(', ')}`);
  return all.filter((one) => given?.includes(one) ?? true);
}

/** What was recorded of a benchmark on this machine before. */
export function earlier<R>(benchmark: string): R | undefined {
  const text = read(pathOf(benchmark));
  return text === '' ? undefined : (JSON.parse(text) as BenchResult<R>).results;
}

/** Writes the results of one benchmark on this machine, in place of earlier ones. */
export function record(benchmark: string, counts: Record<string, number>, results: unknown): void {
  const result: BenchResult = {
    benchmark,
    machine: { ...machine, load: loadavg()[0] ?? 0 },
    date: new Date().toISOString(),
    counts,
    note: process.env.BENCH_NOTE ?? null,
    results,
  };
  mkdirSync(resultsDir, { recursive: true });
  writeFileSync(pathOf(benchmark), `${JSON.stringify(result, null, 2)}\n`);
}

function pathOf(benchmark: string): string {
  const { kernel, emulated } = machine;
  const series = kernel.split('.').slice(0, 2).join('.');
  return `${resultsDir}${benchmark}-${series}${emulated ? '-emulated' : ''}.json`;
}

/** QEMU without KVM: with KVM, Linux has its clock. */
function isEmulated(): boolean {
  const vendor = read('/sys/class/dmi/id/sys_vendor');
  const clocks = read('/sys/devices/system/clocksource/clocksource0/available_clocksource');
  return vendor.includes('QEMU') && !clocks.includes('kvm-clock');
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
