// SPDX-License-Identifier: Apache-2.0
// `make bench`: runs the benchmarks one after the other, each on every kernel that it is about, and writes what they
// found to docs/benchmarks.md. How often each runs is in the benchmark, and in BENCH_... of the environment.
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { top } from '../lib/daemon.ts';
import { debianKernels, missingForVm } from '../runner/vm.ts';
import { page } from './page.ts';

/** The kernel on which one is enough: Debian's stable one. */
const stable = '6.12';
/** Natively, on whatever runs here. */
const here = 'here';

/** Where each benchmark runs. Only what the kernel does can differ from one kernel to the next. */
const benchmarks: Readonly<Record<string, readonly string[]>> = {
  wrapper: [...debianKernels, here],
  stop: debianKernels,
  lend: debianKernels,
  shortage: [stable],
  alloc: [stable],
  daemon: [stable, here],
  rate: [stable, here],
  'freeze-thaw': [stable],
  cpu: [stable],
  soak: [stable],
  replay: [stable],
  proxy: [here],
  turns: [here],
  sim: [here],
};

/** What a guest has, in MiB, where that is not the usual. It takes from this machine only what it uses. */
const memoryMiB: Readonly<Record<string, number>> = {
  // 32 sessions hold 8.2 GB.
  replay: 10_240,
};

const usage = `usage: node test/bench/run.ts [--on KERNEL]... [BENCHMARK]...

  --on       ${[...debianKernels, here].join(', ')}; default all that the benchmark is about
  BENCHMARK  ${Object.keys(benchmarks).join(', ')}; default all`;

/** The clock of a guest: an option of test/vm/run, and what the results say of it. */
interface Clock {
  readonly option: string;
  readonly note: string;
}
/**
 * For those that look for a per cent, which an emulator's own noise would hide, or compare what code takes with what the
 * kernel waits for, which an emulator does not stretch.
 */
const COUNTED: Clock = {
  option: '--icount',
  note: 'the clock of its one CPU counts instructions, one a nanosecond',
};
/** For sessions of minutes, most of which they sleep. */
const SKIPPED: Clock = {
  option: '--skip-idle',
  note: `${COUNTED.note}, and skips the time in which it has nothing to do`,
};
/** Those that do not go by the host's time. */
const clocks: Readonly<Record<string, Clock>> = {
  alloc: COUNTED,
  lend: COUNTED,
  shortage: COUNTED,
  wrapper: COUNTED,
  replay: SKIPPED,
};

/** Those whose guest has systemd as process 1: it is measured too. */
const withSystemd: ReadonlySet<string> = new Set(['wrapper']);

/** The soak makes some hundred calls a minute on two emulated cores; the others take ten minutes. */
const timeoutSeconds = 14_400;

const { on, names } = readArgs();
const missing = missingForVm();
let failures = 0;
for (const name of names) {
  for (const machine of benchmarks[name] ?? []) {
    if (on && !on.includes(machine)) continue;
    console.log(`${name}, ${machine}:`);
    if (machine !== here && missing !== null) {
      console.log(`skipped: ${missing}`);
      continue;
    }
    const file = `test/bench/${name}.bench.ts`;
    const memory = memoryMiB[name] === undefined ? [] : ['--memory', `${memoryMiB[name]}`];
    const options = [...memory];
    const clock = machine === here ? undefined : clocks[name];
    if (clock !== undefined) options.push(clock.option);
    if (withSystemd.has(name)) options.push('--systemd');
    const inGuest = ['--kernel', machine, '--timeout', `${timeoutSeconds}`, ...options, '--', 'node', file];
    const [program, args] = machine === here ? [process.execPath, [file]] : ['test/vm/run', inGuest];
    const note = clock === undefined ? [] : [clock.note];
    if (process.env.BENCH_NOTE !== undefined) note.push(process.env.BENCH_NOTE);
    const env = note.length > 0 ? { ...process.env, BENCH_NOTE: note.join('; ') } : process.env;
    const { status } = spawnSync(program, args, { cwd: top, env, stdio: ['ignore', 'inherit', 'inherit'] });
    if (status !== 0) {
      console.error(`${name}, ${machine}: failed with status ${status}`);
      failures += 1;
    }
  }
}
const pageFile = `${top}docs/benchmarks.md`;
writeFileSync(pageFile, page(readFileSync(pageFile, 'utf8')));
process.exitCode = failures > 0 ? 1 : 0;

function readArgs(): { on: string[] | undefined; names: readonly string[] } {
  try {
    const { values, positionals } = parseArgs({
      options: { on: { type: 'string', multiple: true } },
      allowPositionals: true,
    });
    for (const name of positionals) if (!(name in benchmarks)) throw new Error(`no benchmark ${name}`);
    return { on: values.on, names: positionals.length > 0 ? positionals : Object.keys(benchmarks) };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`);
    process.exit(2);
  }
}
