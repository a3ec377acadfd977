// SPDX-License-Identifier: Apache-2.0
// What the daemon itself costs: memory when idle, CPU time for a call, and what is left of many calls at once.
import { readdirSync, readFileSync } from 'node:fs';
import { agentrmBash, TestDaemon, until } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { type Summary, summary } from './stats.ts';
import { output, timePath } from './tools.ts';

/** One after the other, for the CPU time of each. */
const calls = count('CALLS', 200, 50);
const atOnce = count('AT_ONCE', 500);
/** USER_HZ, 100 on every Linux that runs Node. */
const TICKS_PER_SECOND = 100;

export interface DaemonResults {
  readonly backend: string;
  readonly idleRssBytes: number;
  readonly idleFds: number;
  readonly cpuMsPerCall: number;
  readonly atOnce: {
    readonly ended: number;
    readonly managed: number;
    readonly unmanaged: number;
    readonly late: number;
    /** From the start of the first to the end of each. */
    readonly endedMs: Summary;
    readonly cpuMsPerCall: number;
    readonly rssBytes: number;
    readonly peakRssBytes: number;
    readonly fds: number;
  };
}

const command = [agentrmBash, '-c', 'true'] as const;
const daemon = await new TestDaemon().start();
try {
  const env = daemon.env();
  const { backend } = await daemon.status();
  await output([timePath, 'rounds', '5', '0', '--', ...command], { env });
  await quiet();
  const idle = look();

  await output([timePath, 'rounds', `${calls}`, '0', '--', ...command], { env });
  await quiet();
  const afterCalls = look();

  const managedBefore = await managedCalls();
  const { stdout, stderr } = await output([timePath, 'burst', `${atOnce}`, '--', ...command], { env });
  const endedMs = stdout
    .trim()
    .split('\n')
    .map((ns) => Number(ns) / 1e6);
  await quiet();
  const afterBurst = look();
  const results: DaemonResults = {
    backend: backend.mode,
    idleRssBytes: idle.rssBytes,
    idleFds: idle.fds,
    cpuMsPerCall: (afterCalls.cpuMs - idle.cpuMs) / calls,
    atOnce: {
      // agentrm-time fails unless every one of them ends with 0.
      ended: endedMs.length,
      managed: (await managedCalls()) - managedBefore,
      unmanaged: stderr.match(/^agentrm: .*running unmanaged$/gm)?.length ?? 0,
      late: stderr.match(/until it comes$/gm)?.length ?? 0,
      endedMs: summary(endedMs),
      cpuMsPerCall: (afterBurst.cpuMs - afterCalls.cpuMs) / atOnce,
      rssBytes: afterBurst.rssBytes,
      peakRssBytes: afterBurst.peakRssBytes,
      fds: afterBurst.fds,
    },
  };
  console.log(results);
  record('daemon', { calls, atOnce }, results);
} finally {
  await daemon.close();
}

async function managedCalls(): Promise<number> {
  return (await daemon.status()).counters.calls ?? 0;
}

/** Nothing is running and nothing is left to clean up: sessions end after their last call, and their cgroups go. */
async function quiet(): Promise<void> {
  await until(async () => {
    const { calls, sessions } = await daemon.status();
    return sessions === 0 && Object.values(calls).every((number) => number === 0);
  }, 'all calls and sessions have ended');
}

function look() {
  const status = readFileSync(`/proc/${daemon.pid}/status`, 'utf8');
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]);
  const stat = readFileSync(`/proc/${daemon.pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    rssBytes: kib('VmRSS') * 1024,
    peakRssBytes: kib('VmHWM') * 1024,
    fds: readdirSync(`/proc/${daemon.pid}/fd`).length,
    cpuMs: ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND,
  };
}
