// SPDX-License-Identifier: Apache-2.0
/**
 * How far past its freeze line a call gets before all of it has stopped, by load and by enforcing hooks. One line of
 * JSON a run on stdout: bytes carry over from an emulated machine to a real one, times do not.
 *
 *   node test/kernel/bpf-overshoot.ts [--runs N] [--hooks A,B]... [--load NAME]...
 */
import { mkdirSync, rmSync } from 'node:fs';
import { release } from 'node:os';
import { parseArgs } from 'node:util';
import { loadProgram } from '../lib/daemon.ts';
import { type Cgroup, Lab, MiB, missing } from './bpf-lab.ts';

const highMiB = 64;
/** Fence for loads that cannot be stopped half-way: far enough above the line not to shape the others. */
const maxMiB = 160;
/** Longer than the longest throttle sleep: what is still in one when the call is stopped ends meanwhile. */
const settleMs = 2500;

const shared = '/dev/shm/agentrm-overshoot';

interface Load {
  args: string[];
  /** Tasks that charge at the same time; for the forks, the most that can be in one charge on two CPUs. */
  tasks: number;
}

const loads: Record<string, Load> = {
  '1 process': { args: ['--bytes', '120M', 'procs', '1'], tasks: 1 },
  '16 processes': { args: ['--bytes', '64M', 'procs', '16'], tasks: 16 },
  '8 threads': { args: ['--bytes', '64M', 'threads', '8'], tasks: 8 },
  'fork storm': { args: ['--bytes', '2M', 'forks', '60'], tasks: 60 },
  'tmpfs 64 KiB': { args: ['--bytes', '120M', 'tmpfs', shared, '64K'], tasks: 1 },
  'tmpfs 1 MiB': { args: ['--bytes', '120M', 'tmpfs', shared, '1M'], tasks: 1 },
  MAP_POPULATE: { args: ['--bytes', '120M', 'populate'], tasks: 1 },
  '1 process, huge pages': { args: ['--thp', '--bytes', '120M', 'procs', '1'], tasks: 1 },
  '16 processes, huge pages': { args: ['--thp', '--bytes', '64M', 'procs', '16'], tasks: 16 },
};

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves when the call has been stopped, or with false when it came to an end without. */
async function stopped(lab: Lab, cgroup: Cgroup): Promise<boolean> {
  const event = await lab.event(cgroup, 'stop', 'emptied', 'oom');
  return event.kind === 'stop';
}

async function run(lab: Lab, load: Load): Promise<Record<string, unknown>> {
  const { cgroup, policy } = lab.call(highMiB);
  cgroup.write('memory.max', maxMiB * MiB);
  const child = cgroup.spawn(loadProgram, load.args);
  const wasStopped = await stopped(lab, cgroup);
  // The hand-over, as the daemon does it.
  if (wasStopped) lab.freeze(cgroup);
  await wait(settleMs);
  const overBytes = cgroup.number('memory.peak') - policy.freezeLineBytes;
  const { stops, highEvents, failedReclaims, throttledMs } = lab.stats(cgroup);
  const oomKills = Number(/^oom_kill (\d+)$/m.exec(cgroup.read('memory.events'))?.[1]);
  child.kill('SIGKILL');
  await cgroup.remove();
  lab.bpf.deletePolicy(cgroup.id);
  return {
    stopped: wasStopped,
    overKiB: Math.round(overBytes / 1024),
    overKiBPerTask: Math.round(overBytes / 1024 / load.tasks),
    ...{ oomKills, stops, highEvents, failedReclaims, throttledMs },
  };
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    hooks: { type: 'string', multiple: true, default: ['kprobe/schedule_timeout_killable'] },
    load: { type: 'string', multiple: true, default: Object.keys(loads) },
  },
});

const reason = missing();
if (reason !== undefined) throw new Error(reason);
mkdirSync(shared, { recursive: true });
for (const hooks of values.hooks) {
  const lab = new Lab(hooks.split(','));
  for (const name of values.load) {
    const load = loads[name];
    if (!load) throw new Error(`no load ${name}`);
    for (let i = 0; i < Number(values.runs); i++)
      console.log(JSON.stringify({ kernel: release(), hooks, load: name, ...(await run(lab, load)) }));
  }
  console.log(JSON.stringify({ kernel: release(), hooks, counters: lab.bpf.counters() }));
  await lab.close();
}
rmSync(shared, { recursive: true });
