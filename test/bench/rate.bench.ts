// SPDX-License-Identifier: Apache-2.0
// Whether the daemon grows, or its calls get slower, under calls that come at a fixed rate for minutes: each is due
// at its time, whether or not those before have ended, as those of many agents are. A call's time counts from when
// it was due, so that it also counts what it waited for a machine that cannot keep up. Plain bash comes beside it, at a
// lower rate: the machine itself may get slower.
import { availableParallelism, cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { agentrmBash, TestDaemon } from '../lib/daemon.ts';
import {
  type DueCall,
  type Growth,
  growthOf,
  type Minute,
  minutesOf,
  type Sample,
  type Tally,
} from './rate/minutes.ts';
import { count, record } from './record.ts';
import { type Held, held, output, quiet, timePath } from './tools.ts';

/** Calls a minute. Emulated, each keeps a CPU busy for half a second, the two to some 60 %. */
const rate = count('RATE', 5000, 150);
const minutes = count('MINUTES', 5);
if (minutes < 2) throw new Error('BENCH_MINUTES=1: growth is from the first to the last');
/** Of plain bash beside them, which shows how fast the machine itself was in each minute. */
const BARE_RATE = 60;
/** Running at a time. More would only make a machine that falls behind fall further behind. */
const most = count('MOST', 200, 50);
/** So many calls before: Node compiles what it has seen often enough, and of these the daemon remembers 1,000 events. */
const warmUp = count('WARM_UP', 500);
const MINUTE_MS = 60_000;
const SAMPLE_MS = 1000;

export interface RateResults {
  readonly backend: string;
  readonly minutes: readonly Minute[];
  readonly growth: Growth;
  /** Of the daemon before the first call was due, and when all had ended and their sessions too. */
  readonly before: Held;
  readonly after: Held;
}

const daemon = await new TestDaemon().start();
try {
  const { backend } = await daemon.status();
  const rounds = [timePath, 'rounds', `${warmUp}`, '0', '--', agentrmBash, '-c', 'true'] as const;
  await output(rounds, { env: daemon.env() });
  await quiet(daemon);
  let said = '';
  const tally = async (): Promise<Tally> => {
    const { counters } = await daemon.status();
    // Each wrapper that ran its command without an answer has said so.
    const unanswered = said.match(/, running unmanaged/g)?.length ?? 0;
    return { managed: counters.calls ?? 0, unmanaged: counters.unmanaged ?? 0, unanswered };
  };
  const tallies = [await tally()];
  const samples: Sample[] = [];
  const before = held(daemon.pid);

  const started = performance.now();
  const running = Promise.all([
    due(rate, [agentrmBash, '-c', 'true'], (chunk) => {
      said += chunk;
    }),
    due(BARE_RATE, ['/bin/bash', '-c', 'true']),
  ]);
  // It is waited for below, at the end of the time, unless it fails before.
  let failed = false;
  running.catch(() => {
    failed = true;
  });
  for (let at = 0; at < minutes * MINUTE_MS && !failed; at += SAMPLE_MS) {
    await sleep(Math.max(0, started + at - performance.now()));
    const { rssBytes, fds, cpuMs } = held(daemon.pid);
    samples.push({ atMs: performance.now() - started, rssBytes, fds, cpuMs, idleMs: idleMs() });
    if (at > 0 && at % MINUTE_MS === 0) tallies.push(await tally());
  }
  const [calls, bare] = await running;
  await quiet(daemon);
  tallies.push(await tally());
  const found = minutesOf({ calls, bare, samples, tallies, cores: availableParallelism() });
  const results: RateResults = {
    backend: backend.mode,
    minutes: found,
    growth: growthOf(found, calls),
    before,
    after: held(daemon.pid),
  };
  console.dir(results, { depth: null });
  record('rate', { rate, minutes, most, warmUp }, results);
} finally {
  await daemon.close();
}

/** Runs a command at a rate for all the minutes. @returns its runs, in the order in which they were due */
async function due(perMinute: number, command: readonly string[], onStderr?: (chunk: string) => void) {
  const periodUs = Math.floor((MINUTE_MS * 1000) / perMinute);
  const { stdout } = await output(
    [timePath, 'rate', `${perMinute * minutes}`, `${periodUs}`, `${most}`, '--', ...command],
    { env: daemon.env(), ...(onStderr && { onStderr }) },
  );
  return stdout
    .trim()
    .split('\n')
    .map((line): DueCall => {
      const [dueNs, tookNs, heldBack] = line.split(' ').map(Number);
      return { dueMs: Number(dueNs) / 1e6, tookMs: Number(tookNs) / 1e6, heldBack: heldBack === 1 };
    })
    .sort((a, b) => a.dueMs - b.dueMs);
}

/** Since the machine's start, of all its CPUs together. */
function idleMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.idle, 0);
}
