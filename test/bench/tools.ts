// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type TestDaemon, top } from '../lib/daemon.ts';

/** Programs that `make bench` builds. */
export const loadPath = `${top}build/cmake/test/agentrm-load`;
export const pollPath = `${top}build/cmake/test/agentrm-poll`;
export const timePath = `${top}build/cmake/test/agentrm-time`;

export const MiB = 2 ** 20;

export interface Printed {
  readonly stdout: string;
  readonly stderr: string;
}

/** @throws Error if nothing stops calls in the kernel here, so that there would be nothing to measure */
export async function requireKernel(daemon: TestDaemon): Promise<void> {
  const { backend } = await daemon.status();
  if (backend.mode !== 'bpf') throw new Error(`calls are not stopped in the kernel: ${backend.reason}`);
}

/**
 * Runs a program to its end.
 * @throws Error with what it wrote on stderr, unless it ends with 0
 */
export async function output(
  command: readonly [string, ...string[]],
  options: { env?: Record<string, string>; uid?: number } = {},
): Promise<Printed> {
  const [file, ...args] = command;
  const { env, uid } = options;
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
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  if (code !== 0) throw new Error(`${file} ended with ${signal ?? `status ${code}`}: ${stderr.slice(-2000)}`);
  return { stdout, stderr };
}
