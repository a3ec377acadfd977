// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type TestDaemon, top, until } from '../lib/daemon.ts';

/** Programs that `make bench` builds. */
export const pollPath = `${top}build/cmake/test/agentrm-poll`;
export const timePath = `${top}build/cmake/test/agentrm-time`;

export const MiB = 2 ** 20;

/** USER_HZ, 100 on every Linux that runs Node. */
const TICKS_PER_SECOND = 100;

export interface Printed {
  readonly stdout: string;
  readonly stderr: string;
}

/** @throws Error if nothing stops calls in the kernel here, so that there would be nothing to measure */
export async function requireKernel(daemon: TestDaemon): Promise<void> {
  const { backend } = await daemon.status();
  if (backend.mode !== 'bpf') throw new Error(`calls are not stopped in the kernel: ${backend.reason}`);
}

/** Nothing is running and nothing is left to clean up: sessions end after their last call, and their cgroups go. */
export async function quiet(daemon: TestDaemon): Promise<void> {
  await until(async () => {
    const { calls, sessions } = await daemon.status();
    return sessions === 0 && Object.values(calls).every((number) => number === 0);
  }, 'all calls and sessions have ended');
}

/** How many calls the daemon has managed to their end. */
export async function managedCalls(daemon: TestDaemon): Promise<number> {
  return (await daemon.status()).counters.calls ?? 0;
}

/** What a process holds now, and the CPU time that it has taken. */
export interface Held {
  readonly rssBytes: number;
  readonly peakRssBytes: number;
  readonly fds: number;
  readonly cpuMs: number;
}

/** @throws Error ENOENT if there is no such process */
export function held(pid: number): Held {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]);
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    rssBytes: kib('VmRSS') * 1024,
    peakRssBytes: kib('VmHWM') * 1024,
    fds: readdirSync(`/proc/${pid}/fd`).length,
    cpuMs: ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND,
  };
}

/**
 * Runs a program to its end.
 * @param options.onStderr told of what it writes there when it does
 * @throws Error with what it wrote on stderr, unless it ends with 0
 */
export async function output(
  command: readonly [string, ...string[]],
  options: { env?: Record<string, string>; uid?: number; onStderr?: (chunk: string) => void } = {},
): Promise<Printed> {
  const [file, ...args] = command;
  const { env, uid, onStderr } = options;
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(env && { env }),
    ...(uid !== undefined && { uid, gid: uid }),
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
    onStderr?.(chunk);
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (code !== 0) throw new Error(`${file} ended with ${signal ?? `status ${code}`}: ${stderr.slice(-2000)}`);
  return { stdout, stderr };
}
