// SPDX-License-Identifier: Apache-2.0
// How far past its freeze line a load that allocates as fast as it can comes before it stands still, and next to it,
// on the same load: a user-space poller, and memory.high with nobody to freeze.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type Cgroup, ended, Lab, until } from '../kernel/bpf-lab.ts';
import { loadProgram } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { median } from './stats.ts';
import { MiB, pollPath } from './tools.ts';

const runs = count('RUNS', 5, 2);
/** How long memory.high alone is watched, from the line on. A call that nobody decides about would stay longer. */
const watchMs = count('WATCH_MS', 5000, 3000);
const highBytes = 64 * MiB;
const lineBytes = Math.round(highBytes * 1.02);
/** Bounds only what no way of stopping bounds: one system call that takes all its memory at once. */
const populateMaxBytes = 96 * MiB;
/** What one charge of a task may take over the line: 64 pages, or a huge page. */
const goalBytes = { small: 256 * 1024, huge: 2 * MiB };

interface Load {
  readonly name: string;
  /** Arguments for agentrm-load; more than any line or limit in all, so that nothing ends by itself. */
  readonly args: readonly string[];
  /** Tasks that charge at the same time; for forks, all that had been started when it stood still. */
  readonly tasks: number | 'all';
  readonly maxBytes?: number;
}

const loads: readonly Load[] = [
  { name: '1 process', args: ['--bytes', '512M', 'procs', '1'], tasks: 1 },
  { name: '16 processes', args: ['--bytes', '64M', 'procs', '16'], tasks: 16 },
  { name: '8 threads', args: ['--bytes', '64M', 'threads', '8'], tasks: 8 },
  { name: 'fork storm, 4 MiB each', args: ['--bytes', '4M', 'forks', '200'], tasks: 'all' },
  { name: 'tmpfs, 64 KiB writes', args: ['--bytes', '512M', 'tmpfs', '/dev/shm', '64K'], tasks: 1 },
  { name: 'tmpfs, 1 MiB writes', args: ['--bytes', '512M', 'tmpfs', '/dev/shm', '1M'], tasks: 1 },
  { name: 'MAP_POPULATE', args: ['--bytes', '512M', 'populate'], tasks: 1, maxBytes: populateMaxBytes },
];
/** Files in memory have their own setting for huge pages, which is off. */
const pageSizes = (load: Load) => (load.args.includes('tmpfs') ? ['small'] : ['small', 'huge']) as Pages[];
type Pages = keyof typeof goalBytes;

/** Only the first so many of them: 1 for agentrm alone. */
const armCount = count('ARMS', 4);
const arms = ['agentrm', 'poll 1 ms', 'poll 10 ms', 'memory.high'] as const;
type Arm = (typeof arms)[number];

interface Run {
  /** Highest usage less the freeze line. */
  readonly overBytes: number;
  readonly tasks: number;
  /** Whether nothing of it ran on: the usage is final. */
  readonly still: boolean;
}

export interface StopResults {
  readonly highBytes: number;
  readonly lineBytes: number;
  readonly loads: readonly {
    readonly load: string;
    readonly pages: Pages;
    readonly arm: Arm;
    readonly medianOverBytes: number;
    readonly maxOverBytes: number;
    readonly tasks: number;
    readonly maxOverPerTaskBytes: number;
    readonly goalPerTaskBytes: number;
    readonly memoryMaxBytes: number | null;
    readonly still: boolean;
    readonly runs: readonly Run[];
  }[];
  readonly pageCacheReader: readonly { stops: number; reclaims: number; peakBytes: number }[];
}

let plainCgroups = 0;
const lab = new Lab();
const results: StopResults['loads'][number][] = [];
const reader: StopResults['pageCacheReader'][number][] = [];
try {
  // Arm by arm, and what there is so far is recorded: a run that is cut short has the most important part.
  for (const arm of arms.slice(0, armCount)) {
    for (const load of loads) {
      for (const pages of pageSizes(load)) {
        const measured: Run[] = [];
        for (let run = 0; run < runs; run += 1) measured.push(await stop(arm, load, pages));
        const over = measured.map(({ overBytes }) => overBytes);
        const perTask = measured.map(({ overBytes, tasks }) => overBytes / tasks);
        results.push({
          load: load.name,
          pages,
          arm,
          medianOverBytes: median(over),
          maxOverBytes: Math.max(...over),
          tasks: Math.max(...measured.map(({ tasks }) => tasks)),
          maxOverPerTaskBytes: Math.max(...perTask),
          goalPerTaskBytes: goalBytes[pages],
          still: measured.every(({ still }) => still),
          memoryMaxBytes: load.maxBytes ?? null,
          runs: measured,
        });
        const mib = over.map((bytes) => (bytes / MiB).toFixed(2)).join(' ');
        console.log(`${load.name}, ${pages} pages, ${arm}: over by ${mib} MiB, ${measured[0]?.tasks} tasks`);
        recordAll();
      }
    }
    if (arm !== 'agentrm') continue;
    for (let run = 0; run < runs; run += 1) reader.push(await readBesideMemory());
    console.log(`page-cache reader: ${JSON.stringify(reader)}`);
    recordAll();
  }
} finally {
  await lab.close();
}

function recordAll(): void {
  const found: StopResults = { highBytes, lineBytes, loads: results, pageCacheReader: reader };
  record('stop', { runs, watchMs, arms: armCount }, found);
}

/** Lets a load run into its line, waits until it stands still (or, where nobody stops it, for `watchMs`). */
async function stop(arm: Arm, load: Load, pages: Pages): Promise<Run> {
  const args = [...(pages === 'huge' ? ['--thp'] : []), ...load.args];
  const poller = /^poll (\d+) ms$/.exec(arm)?.[1];
  const cgroup =
    arm === 'agentrm' ? lab.call(highBytes / MiB, { freezeLineBytes: lineBytes }).cgroup : plain();
  // A user-space poller replaces memory.high: with both, the line would not be reached at full speed.
  if (arm === 'memory.high') cgroup.write('memory.high', highBytes);
  if (load.maxBytes) cgroup.write('memory.max', load.maxBytes);
  let child: ReturnType<Cgroup['spawn']>;
  let still = false;
  if (arm === 'agentrm') {
    child = cgroup.spawn(loadProgram, args);
    // One system call may run into memory.max before it comes to a stop.
    await Promise.race([lab.event(cgroup, 'stop'), ended(child)]);
    lab.freeze(cgroup);
    still = await standstill(cgroup, child);
  } else if (poller !== undefined) {
    const watching = spawn(pollPath, [cgroup.path, `${lineBytes}`, `${Number(poller) * 1000}`]);
    const frozen = once(watching, 'exit');
    await once(watching.stdout, 'data');
    child = cgroup.spawn(loadProgram, args);
    await Promise.race([frozen, ended(child)]);
    watching.kill();
    still = await standstill(cgroup, child);
  } else {
    child = cgroup.spawn(loadProgram, args);
    await until(() => cgroup.number('memory.current') > lineBytes || hasEnded(child));
    await new Promise((resolve) => setTimeout(resolve, watchMs));
  }
  const overBytes = cgroup.number('memory.peak') - lineBytes;
  const tasks = load.tasks === 'all' ? Math.max(1, cgroup.number('pids.current') - 1) : load.tasks;
  if (arm === 'agentrm') lab.bpf.deletePolicy(cgroup.id);
  await cgroup.remove();
  return { overBytes, tasks, still };
}

/** A cgroup beside the calls, of which the BPF programs know nothing. */
function plain(): Cgroup {
  plainCgroups += 1;
  return lab.session.child(`plain${plainCgroups}`);
}

/** @returns whether all of the cgroup stands still; a task in a long system call cannot, so this waits `watchMs`. */
async function standstill(cgroup: Cgroup, child: ReturnType<Cgroup['spawn']>): Promise<boolean> {
  const deadline = Date.now() + watchMs;
  const still = () => hasEnded(child) || /^frozen 1$/m.test(cgroup.read('cgroup.events'));
  await until(() => still() || Date.now() > deadline);
  return still();
}

function hasEnded(child: ReturnType<Cgroup['spawn']>): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** 60 MB of anonymous memory and a larger file through the page cache, at a memory.high of 64 MiB. */
async function readBesideMemory(): Promise<{ stops: number; reclaims: number; peakBytes: number }> {
  // What is in the page cache already is charged to whoever read it first.
  writeFileSync('/proc/sys/vm/drop_caches', '1');
  const { cgroup } = lab.call(highBytes / MiB, { freezeLineBytes: lineBytes });
  const child = cgroup.spawn(loadProgram, ['--bytes', '60000000', 'read', process.execPath]);
  await Promise.race([ended(child), lab.event(cgroup, 'stop')]);
  const { stops, highEvents } = lab.stats(cgroup);
  const peakBytes = cgroup.number('memory.peak');
  lab.bpf.deletePolicy(cgroup.id);
  await cgroup.remove();
  return { stops, reclaims: highEvents, peakBytes };
}
