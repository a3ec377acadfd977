// SPDX-License-Identifier: Apache-2.0
// What `agentrm-bash -c true` takes longer than `bash -c true`, with a daemon that has warmed up: for each caller
// that there is, in lone calls (as agents make them) and back to back. Both are timed in turn, so that what else the
// machine does meets both. Where systemd runs, the same of `systemd-run --scope bash -c true`, which also gives a
// command a cgroup of its own.
import { chmodSync, copyFileSync, existsSync } from 'node:fs';
import { TestDaemon, top } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { type Interval, interval, median, quantile, type Summary, summary } from './stats.ts';
import { managedCalls, output, timePath } from './tools.ts';

/** Of root. */
const calls = count('CALLS', 1000, 30);
/** Of each other caller. */
const userCalls = count('USER_CALLS', calls);
/** Of systemd-run: it connects to process 1, and takes many times as long as bash. */
const scopeCalls = count('SCOPE_CALLS', 200, 10);
/** So many calls before anything is timed: Node compiles what it has seen often enough. */
const warmUp = count('WARM_UP', 200, 10);
/** Between lone calls: the kernel's grace periods, for which a lone move waits, are over by then. */
const lonePauseMs = 20;
const USER = 1000;

interface Caller {
  readonly name: string;
  readonly uid: number;
  /** Whether agentrm-bash has its file capability, with which it can fork into a call's cgroup. */
  readonly capability: boolean;
}

const root: Caller = { name: 'root', uid: 0, capability: false };
const user: Caller = { name: 'user', uid: USER, capability: false };
const userCapable: Caller = { name: 'user, file capability', uid: USER, capability: true };
const scope: Caller = { name: 'root, systemd-run --scope', uid: 0, capability: false };

const bash = ['/bin/bash', '-c', 'true'] as const;
const inScope = ['/usr/bin/systemd-run', '--scope', '--quiet', ...bash] as const;
/** Whether process 1 is systemd, sd_booted(3). */
const hasSystemd = existsSync('/run/systemd/system');

type Command = readonly [file: string, ...args: string[]];

/** Times in milliseconds. */
export interface WrapperResults {
  /** Of the daemon: where it is `none`, calls are asked for and run unmanaged. */
  readonly backend: string;
  readonly callers: readonly {
    readonly caller: string;
    readonly pattern: 'lone' | 'back to back';
    /** By AgentRM, to their end; null if they were none of its calls. */
    readonly managed: number | null;
    readonly bashMs: Summary;
    readonly wrapperMs: Summary;
    readonly addedMs: Summary;
    /** Added time as a multiple of one bash start. */
    readonly p50Ratio: number;
    readonly p50RatioInterval: Interval;
    readonly p99Ratio: number;
    readonly p99RatioInterval: Interval;
  }[];
}

const daemon = new TestDaemon();
chmodSync(daemon.dir, 0o755);
await daemon.start();
try {
  const { backend } = await daemon.status();
  // A host that cannot manage calls still shows what asking costs; the door makes no difference there.
  const callers = backend.mode === 'bpf' || backend.mode === 'user' ? [root, userCapable, user] : [root];
  const results: WrapperResults['callers'][number][] = [];
  const measure = async (caller: Caller, command: Command, rounds: number): Promise<void> => {
    for (const [pattern, pauseMs] of [
      ['lone', lonePauseMs],
      ['back to back', 0],
    ] as const) {
      const before = await managedCalls(daemon);
      const pairs = await time(caller, command, rounds, pauseMs);
      const managed = caller === scope ? null : (await managedCalls(daemon)) - before;
      const added = pairs.map(([bare, wrapped]) => wrapped - bare);
      const bareMs = median(pairs.map(([bare]) => bare));
      results.push({
        caller: caller.name,
        pattern,
        managed,
        bashMs: summary(pairs.map(([bare]) => bare)),
        wrapperMs: summary(pairs.map(([, wrapped]) => wrapped)),
        addedMs: summary(added),
        p50Ratio: median(added) / bareMs,
        p50RatioInterval: interval(pairs, (some) => ratio(some, 0.5)),
        p99Ratio: quantile(added, 0.99) / bareMs,
        p99RatioInterval: interval(pairs, (some) => ratio(some, 0.99)),
      });
      const found: WrapperResults = { backend: backend.mode, callers: results };
      record('wrapper', { calls, userCalls, scopeCalls, warmUp, lonePauseMs }, found);
      const last = results.at(-1);
      console.log(
        `${caller.name}, ${pattern}: bash ${bareMs.toFixed(2)} ms, added p50 ${last?.addedMs.p50.toFixed(2)}` +
          ` p99 ${last?.addedMs.p99.toFixed(2)} ms, ${last?.p50Ratio.toFixed(2)} x, managed ${managed ?? 'none'} of ${rounds}`,
      );
    }
  };
  for (const caller of callers) {
    const command: Command = [await install(caller), '-c', 'true'];
    await time(caller, command, warmUp, 0);
    await measure(caller, command, caller === root ? calls : userCalls);
    if (caller !== root || !hasSystemd) continue;
    // What systemd loads for its first scope is not asked here either.
    await time(scope, inScope, Math.min(warmUp, scopeCalls), 0);
    await measure(scope, inScope, scopeCalls);
  }
} finally {
  await daemon.close();
}

/** A quantile of the added time as a multiple of one bash start. */
function ratio(pairs: readonly (readonly [bare: number, wrapped: number])[], share: number): number {
  const added = pairs.map(([bare, wrapped]) => wrapped - bare);
  return quantile(added, share) / median(pairs.map(([bare]) => bare));
}

/** The checkout's wrapper; for a caller that has the capability a copy with it. */
async function install({ capability }: Caller): Promise<string> {
  const wrapper = `${top}wrapper/agentrm-bash`;
  if (!capability) return wrapper;
  const copy = `${daemon.dir}/agentrm-bash`;
  copyFileSync(wrapper, copy);
  chmodSync(copy, 0o755);
  await output(['/sbin/setcap', 'cap_dac_override=p', copy]);
  return copy;
}

/** Durations in milliseconds: of bash, and of the command, which does the same. */
async function time(caller: Caller, command: Command, rounds: number, pauseMs: number) {
  const { stdout, stderr } = await output(
    [timePath, 'rounds', `${rounds}`, `${pauseMs}`, '--', ...bash, '--', ...command],
    { env: daemon.env(), uid: caller.uid },
  );
  if (stderr !== '') process.stderr.write(stderr.slice(0, 500));
  return stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' ').map((ns) => Number(ns) / 1e6) as [bare: number, wrapped: number]);
}
