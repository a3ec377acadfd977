// SPDX-License-Identifier: Apache-2.0
// What the daemon itself costs: memory when idle, CPU time for a call, and what is left of many calls at once.
import { agentrmBash, TestDaemon } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { type Summary, summary } from './stats.ts';
import { held, managedCalls, output, quiet, timePath } from './tools.ts';

/** One after the other, for the CPU time of each. */
const calls = count('CALLS', 200, 50);
const atOnce = count('AT_ONCE', 500);

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
  await quiet(daemon);
  const idle = held(daemon.pid);

  await output([timePath, 'rounds', `${calls}`, '0', '--', ...command], { env });
  await quiet(daemon);
  const afterCalls = held(daemon.pid);

  const managedBefore = await managedCalls(daemon);
  const { stdout, stderr } = await output([timePath, 'burst', `${atOnce}`, '--', ...command], { env });
  const endedMs = stdout
    .trim()
    .split('\n')
    .map((ns) => Number(ns) / 1e6);
  await quiet(daemon);
  const afterBurst = held(daemon.pid);
  const results: DaemonResults = {
    backend: backend.mode,
    idleRssBytes: idle.rssBytes,
    idleFds: idle.fds,
    cpuMsPerCall: (afterCalls.cpuMs - idle.cpuMs) / calls,
    atOnce: {
      // agentrm-time fails unless every one of them ends with 0.
      ended: endedMs.length,
      managed: (await managedCalls(daemon)) - managedBefore,
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
