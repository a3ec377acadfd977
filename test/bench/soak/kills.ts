// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import type { CallRecord } from '../../../daemon/control/types.ts';
import { generator } from '../../../daemon/sim/random.ts';
import { mapEntries, NO_ENTRIES } from '../../lib/bpf-maps.ts';
import { agentrmBash, type TestDaemon, until } from '../../lib/daemon.ts';

/** What is left when all agents have ended, and what was recorded. */
export interface KillsResult {
  readonly calls: number;
  /** How often each kind of call came, and what happened to the daemon. */
  readonly kinds: Readonly<Record<string, number>>;
  readonly daemonRestarts: number;
  readonly daemonKills: number;
  /** Calls that said themselves that they ran in a cgroup of their own; others came when no daemon was there. */
  readonly managed: number;
  /** Managed calls without a record, and with more than one. */
  readonly unrecorded: number;
  readonly recordedTwice: number;
  /** Records of calls that could say nothing before they were killed, or that were moved when they had said it. */
  readonly recordedOnly: number;
  readonly outcomes: Readonly<Record<string, number>>;
  /** Left at the end: agents that wait for a call, cgroups, processes of managed calls, entries in BPF maps. */
  readonly stuck: number;
  readonly cgroups: number;
  readonly processes: number;
  readonly mapEntries: Readonly<Record<string, number>>;
  readonly minutes: number;
}

export interface KillsOptions {
  readonly calls: number;
  readonly parallel: number;
  readonly seed: number;
  /** Calls between two ends of the daemon. */
  readonly daemonEvery: number;
}

/** Says where it runs, with nothing but builtins; `sleeper` is found again by its name. */
const HEAD = `read -r l </proc/self/cgroup; echo "$l"; l=\${l##*/}; sleeper() { exec -a "soak-$l" sleep infinity; }; `;

interface Kind {
  readonly weight: number;
  readonly command: string;
  /** Who is killed from outside, if it has not ended by then. */
  readonly victim?: 'wrapper' | 'shell' | 'child' | 'agent';
}

const kinds: Readonly<Record<string, Kind>> = {
  ends: { weight: 20, command: 'exit 3' },
  pipeline: { weight: 10, command: 'echo x | cat >/dev/null; :' },
  'background child': { weight: 10, command: 'sleeper >/dev/null & exit 0' },
  'background children of their own session': {
    weight: 5,
    command: `setsid bash -c 'exec -a "soak-$0" sleep infinity' "$l" >/dev/null & (sleeper >/dev/null &) ; exit 0`,
  },
  nested: { weight: 10, command: `${agentrmBash} -c 'exit 4'; :` },
  'nested with a background child': {
    weight: 5,
    command: `${agentrmBash} -c 'exec -a "soak-$0" sleep infinity >/dev/null & :' "$l"; :`,
  },
  'kills itself': { weight: 5, command: 'kill -9 $$' },
  'kills its child': { weight: 5, command: 'sleeper >/dev/null & kill -9 $!; wait; :' },
  'wrapper killed': { weight: 10, command: 'sleeper >/dev/null & sleeper', victim: 'wrapper' },
  'shell killed': { weight: 10, command: 'sleeper >/dev/null & wait', victim: 'shell' },
  'child killed': { weight: 5, command: 'sleeper; :', victim: 'child' },
  'agent killed': { weight: 10, command: 'sleeper >/dev/null & wait', victim: 'agent' },
};

/** Calls of all kinds, several at a time, with a daemon that is restarted and killed now and then. */
export async function soak(daemon: TestDaemon, options: KillsOptions): Promise<KillsResult> {
  const random = generator(options.seed);
  const started = performance.now();
  const counts: Record<string, number> = {};
  const managed = new Set<string>();
  const agents = new Set<Agent>();
  let made = 0;
  let daemonRestarts = 0;
  let daemonKills = 0;
  /** Settled while there is a daemon; counted up when it is to end. */
  let disturbed = Promise.resolve();
  let disturbances = 0;

  const disturb = async (): Promise<void> => {
    if (random() < 0.5) {
      daemonRestarts += 1;
      await daemon.stop();
    } else {
      daemonKills += 1;
      await daemon.crash();
    }
    // Some calls come while there is none.
    await pause(random() * 300);
    await daemon.start();
  };

  const worker = async (number: number): Promise<void> => {
    let seen = 0;
    while (made < options.calls) {
      // A few calls without a daemon are enough, and a thousand of them would keep it from starting.
      if (seen < disturbances) await disturbed;
      seen = disturbances;
      made += 1;
      if (made % 100 === 0) console.log(`${made} calls, ${managed.size} managed`);
      if (made % options.daemonEvery === 0) {
        disturbances += 1;
        disturbed = disturbed.then(disturb);
      }
      const name = pick(random());
      const { command, victim } = kinds[name] as Kind;
      counts[name] = (counts[name] ?? 0) + 1;
      // Some sessions have many calls, some one.
      const session = random() < 0.7 ? `worker-${number}` : `once-${made}`;
      const agent = new Agent(daemon, session, HEAD + command);
      agents.add(agent);
      const delayMs = random() * 400;
      void agent.ended.then(() => agents.delete(agent));
      const cgroup = await agent.cgroup;
      const id = /\/(c[0-9a-f]{12})$/.exec(cgroup)?.[1];
      if (id !== undefined) managed.add(id);
      if (victim !== undefined) await agent.kill(victim, delayMs);
      await agent.ended;
    }
  };
  const workers = Array.from({ length: options.parallel }, (_, number) => worker(number));
  const all = Promise.all(workers).then(() => disturbed);
  // Whoever waits for longer than this is stuck: nothing here takes a second.
  let before = -1;
  while (before !== made) {
    before = made;
    const over = await Promise.race([all.then(() => true), patience(120_000).then(() => false)]);
    if (over) break;
  }
  const stuck = agents.size;
  for (const agent of agents) agent.abandon();
  await all;

  const isQuiet = async () => {
    const { calls, sessions } = await daemon.status();
    return (
      sessions === 0 && Object.values(calls).every((number) => number === 0) && cgroupsOf(daemon).length === 0
    );
  };
  await until(isQuiet, 'nothing is left').catch(async () => {
    console.log('left:', cgroupsOf(daemon), await daemon.text('/v1/sessions'));
  });
  // A daemon that has only just started answers from memory what its file is too slow for.
  let records: CallRecord[] = [];
  const isRecorded = async () => {
    records = await daemon.calls();
    const ids = new Set(records.map(({ id }) => id));
    return [...managed].every((id) => ids.has(id));
  };
  await until(isRecorded, 'all are recorded').catch(() => {});
  const recorded = new Map<string, number>();
  const outcomes: Record<string, number> = {};
  for (const { id, outcome } of records) {
    recorded.set(id, (recorded.get(id) ?? 0) + 1);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
  const unrecorded = [...managed].filter((id) => !recorded.has(id));
  if (unrecorded.length > 0) console.log('unrecorded:', unrecorded.slice(0, 20));
  const live = await daemon.liveCalls();
  if (live.length > 0) console.dir(live.slice(0, 5), { depth: null });
  const { backend } = await daemon.status();
  return {
    calls: options.calls,
    kinds: counts,
    daemonRestarts,
    daemonKills,
    managed: managed.size,
    unrecorded: unrecorded.length,
    recordedTwice: [...recorded.values()].filter((times) => times > 1).length,
    recordedOnly: [...recorded.keys()].filter((id) => !managed.has(id)).length,
    outcomes,
    stuck,
    cgroups: cgroupsOf(daemon).length,
    processes: sleepers(),
    mapEntries: backend.mode === 'bpf' ? mapEntries(daemon.cgroup) : NO_ENTRIES,
    minutes: (performance.now() - started) / 60_000,
  };
}

/** A stand-in for an agent, which starts the wrapper and waits for it. A shell would be taken for one of an agent's. */
class Agent {
  /** Where the command runs, as in /proc/PID/cgroup; empty if it could not say so. */
  readonly cgroup: Promise<string>;
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;

  constructor(daemon: TestDaemon, session: string, command: string) {
    const child = spawn('/usr/bin/perl', ['-e', 'system @ARGV', agentrmBash, '-c', command], {
      env: daemon.env({ AGENTRM_SESSION: session }),
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    this.#child = child;
    this.ended = once(child, 'exit').then(() => {});
    this.cgroup = Promise.race([
      once(child.stdout as NodeJS.ReadableStream, 'data').then(
        ([chunk]) => String(chunk).split('\n')[0] ?? '',
      ),
      this.ended.then(() => ''),
    ]);
    child.stdout?.on('end', () => {});
  }

  /** @param delayMs after which, if it still runs */
  async kill(victim: NonNullable<Kind['victim']>, delayMs: number): Promise<void> {
    await pause(delayMs);
    const agent = this.#child.pid ?? 0;
    const [wrapper = 0] = childrenOf(agent);
    const [shell = 0] = childrenOf(wrapper);
    const [child = 0] = childrenOf(shell);
    const pid = { agent, wrapper, shell, child }[victim];
    // Without a daemon the wrapper has become the shell; and a shell with one command left becomes that.
    const next = pid || shell || wrapper;
    if (next > 0 && this.#child.exitCode === null && this.#child.signalCode === null) killProcess(next);
    // A killed agent leaves its call to the daemon.
    if (victim !== 'agent')
      await Promise.race([this.ended, patience(10_000).then(() => killProcess(wrapper))]);
  }

  abandon(): void {
    this.#child.kill('SIGKILL');
  }
}

function pick(share: number): string {
  const entries = Object.entries(kinds);
  let left = share * entries.reduce((sum, [, { weight }]) => sum + weight, 0);
  for (const [name, { weight }] of entries) {
    left -= weight;
    if (left < 0) return name;
  }
  return 'ends';
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return []; // it has ended
  }
}

function killProcess(pid: number): void {
  try {
    if (pid > 0) process.kill(pid, 'SIGKILL');
  } catch {
    // it has ended
  }
}

/** Directories of sessions and calls. */
function cgroupsOf(daemon: TestDaemon): string[] {
  return readdirSync(daemon.cgroup, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ parentPath, name }) => `${parentPath}/${name}`);
}

/** Processes that managed calls have left; those of unmanaged ones are nobody's, and are ended here. */
function sleepers(): number {
  let left = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [name = ''] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      if (/^soak-c[0-9a-f]{12}$/.test(name)) left += 1;
      else if (name.startsWith('soak-')) process.kill(Number(pid), 'SIGKILL');
    } catch {
      // it has ended
    }
  }
  return left;
}

/** Holds no process up: what is waited for mostly comes first. */
const patience = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref());
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
