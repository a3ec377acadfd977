// SPDX-License-Identifier: Apache-2.0
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';

/** The wrapper of this checkout, which finds the helper in dist/. */
export const wrapper = new URL('../../wrapper/agentrm-bash', import.meta.url).pathname;
export const helper = new URL('../../dist/agentrm-run', import.meta.url).pathname;
export const guard = new URL('../../dist/agentrm-guard', import.meta.url).pathname;

/** Option of `describe`: the reason why a layer cannot run here, or false. */
export const unbuilt = existsSync(helper) && existsSync(guard) ? false : 'dist/agentrm-run is not built';

/** Privileges that a few tests cannot do without. */
export const unprivileged = process.getuid?.() === 0 ? false : 'needs root';

export interface Result {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ShellOptions {
  /** The whole environment besides PATH, HOME and SHLVL: nothing of the caller's leaks in. */
  readonly env?: Record<string, string>;
  readonly input?: string;
  readonly cwd?: string;
  /** What the program is called, if not by its file. */
  readonly argv0?: string;
}

export function start(
  file: string,
  args: string[],
  options: ShellOptions = {},
): ChildProcessWithoutNullStreams {
  // SHLVL: Node's pipes are sockets, and a first-level bash on a socket thinks that it was run by rshd.
  const env = { PATH: '/usr/local/bin:/usr/bin:/bin', HOME: '/nonexistent', SHLVL: '1', ...options.env };
  return spawn(file, args, { env, cwd: options.cwd, argv0: options.argv0 });
}

/** Collects what a process writes until it has ended and its pipes are closed. */
export async function finish(child: ChildProcessWithoutNullStreams): Promise<Result> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  const text = (chunks: Buffer[]): string => Buffer.concat(chunks).toString('latin1');
  return { status, signal, stdout: text(stdout), stderr: text(stderr) };
}

export function run(file: string, args: string[], options: ShellOptions = {}): Promise<Result> {
  const child = start(file, args, options);
  // EPIPE: a command may end without having read its input.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  return finish(child);
}

/** Resolves once the process has written `text` on stdout. */
export function printed(child: { readonly stdout: Readable }, text: string): Promise<void> {
  let seen = '';
  return new Promise((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      seen += chunk.toString('latin1');
      if (seen.includes(text)) resolve();
    });
    child.stdout.once('end', () => reject(new Error(`ended without printing ${text}: ${seen}`)));
  });
}

/** A directory that is gone at the end of the scope. */
export function scratch(): { readonly path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), 'agentrm-wrapper-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
