// SPDX-License-Identifier: Apache-2.0
// Whether the daemon grows, or its calls get slower, under calls that come at a fixed rate for minutes: each is due
// at its time, whether or not those before have ended, as those of many agents are. A call's time counts from when
// it was due, so that it also counts what it waited for a machine that cannot keep up.
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

/** Calls a minute. Emulated, a call takes some 150 ms of both CPUs: two are kept busy by this to some 60 %. */
const rate = count('RATE', 5000, 200);
const minutes = count('MINUTES', 5);
if (minutes < 2) throw new Error('BENCH_MINUTES=1: growth is from the first to the last');
/** Running at a time. More would only make a machine that falls behind fall further behind. */
const most = count('MOST', 200, 50);
/** So many calls before: Node compiles what it has seen often enough. */
const warmUp = count('WARM_UP', 500, 50);
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

const command = [agentrmBash, '-c', 'true'] as const;
const daemon = await new TestDaemon().start();
try {
  const env = daemon.env();
  const { backend } = await daemon.status();
  await output([timePath, 'rounds', `${warmUp}`, '0', '--', ...command], { env });
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
  const periodUs = Math.floor((MINUTE_MS * 1000) / rate);
  const rounds = [`${rate * minutes}`, `${periodUs}`, `${most}`] as const;
  const running = output([timePath, 'rate', ...rounds, '--', ...command], {
    env,
    onStderr: (chunk) => {
      said += chunk;
    },
  });
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
  const { stdout } = await running;
  await quiet(daemon);
  tallies.push(await tally());
  const calls = stdout
    .trim()
    .split('\n')
    .map((line): DueCall => {
      const [dueNs, tookNs, heldBack] = line.split(' ').map(Number);
      return { dueMs: Number(dueNs) / 1e6, tookMs: Number(tookNs) / 1e6, heldBack: heldBack === 1 };
    })
    .sort((a, b) => a.dueMs - b.dueMs);
  const found = minutesOf({ calls, samples, tallies, cores: availableParallelism() });
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

/** Since the machine's start, of all its CPUs together. */
function idleMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.idle, 0);
}
