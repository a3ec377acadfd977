// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { CallRecord, Event, LiveCall, Status } from '../../daemon/control/types.ts';
import type { Delegated } from './delegated.ts';

/** The checkout. */
export const top = fileURLToPath(new URL('../../', import.meta.url));
export const agentrmBash = `${top}wrapper/agentrm-bash`;
/** Uses memory in the way it is told; static, so that little else is charged. */
export const loadProgram = `${top}build/cmake/test/agentrm-load`;
/** A command that touches so much memory and ends with 0. */
export const useMemory = (mib: number) => `${loadProgram} --bytes ${mib}M procs 1`;

/** Starts what follows as init would, with a socket in descriptor 3. */
const AS_INIT = ['sh', '-c', 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'];

export interface Ran {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly input?: string;
  readonly cwd?: string;
  readonly uid?: number;
  /** Kills the command's process group when it is over; the result then has that signal. */
  readonly timeoutMs?: number;
}

/** A real daemon in a directory of its own, with a cgroup root of its own. */
export class TestDaemon {
  readonly dir: string;
  readonly socket: string;
  readonly cgroup: string;
  readonly configPath: string;
  readonly #proxy: Record<string, string>;
  readonly #delegated: Delegated | undefined;
  readonly #launch: readonly string[];
  readonly #listening: number | undefined;
  #child: ChildProcess | undefined;
  #log = '';

  /**
   * @param options.socket of a daemon that somebody else starts
   * @param options.proxy leave the proxy on, on its port
   * @param options.delegated run as the user that this belongs to, and calls likewise
   * @param options.launch what agentrmd is started by, instead of by its file
   * @param options.listening a socket that it gets as from init, sd_listen_fds(3)
   */
  constructor(
    options: {
      config?: string;
      cgroup?: string;
      socket?: string;
      proxy?: boolean;
      delegated?: Delegated;
      launch?: readonly string[];
      listening?: number;
    } = {},
  ) {
    this.#delegated = options.delegated;
    this.#launch = options.launch ?? [`${top}dist/agentrmd`];
    this.#listening = options.listening;
    // Of many daemons at once only one could have the proxy's port.
    this.#proxy = options.proxy ? {} : { AGENTRM_PROXY_LISTEN: 'off' };
    this.dir = mkdtempSync(join(tmpdir(), 'agentrm-'));
    // Other users must reach the socket.
    chmodSync(this.dir, 0o755);
    this.socket = options.socket ?? `${this.dir}/run/agentrm.sock`;
    this.cgroup =
      options.delegated?.calls ?? options.cgroup ?? `/sys/fs/cgroup/test-${process.pid}-${counter++}`;
    this.configPath = `${this.dir}/agentrmd.yaml`;
    writeFileSync(this.configPath, `stateDir: ${this.dir}/state\n${options.config ?? ''}`);
    if (this.#delegated !== undefined) chownSync(this.dir, this.#delegated.uid, this.#delegated.uid);
  }

  /** What to put before a command so that it runs where agents do. */
  get agent(): readonly string[] {
    return this.#delegated?.in('agent') ?? [];
  }

  /** Everything it has logged so far. */
  get log(): string {
    return this.#log;
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the daemon is not running');
    return pid;
  }

  /** Starts it; resolves when it is ready. */
  async start(): Promise<this> {
    const args = ['--config', this.configPath, '--socket', this.socket];
    // A user's daemon finds its cgroup by itself.
    const fromInit = this.#listening === undefined ? [] : AS_INIT;
    const [file = '', ...before] = [...(this.#delegated?.in('service') ?? fromInit), ...this.#launch];
    if (this.#delegated === undefined) args.push('--cgroup', this.cgroup);
    const from = this.#log.length;
    const child = spawn(file, [...before, ...args], {
      stdio: ['ignore', 'pipe', 'pipe', this.#listening ?? 'ignore'],
      env: { ...process.env, ...this.#proxy },
    }) as ChildProcessByStdio<null, Readable, Readable>;
    this.#child = child;
    // The line `ready` is logged when the socket answers: asking it again and again would only slow it.
    const ready = new Promise<void>((resolve) => {
      const keep = (chunk: Buffer) => {
        this.#log += chunk.toString();
        if (this.#log.includes('"msg":"ready"', from)) resolve();
      };
      child.stdout.on('data', keep);
      child.stderr.on('data', keep);
    });
    const ended = once(child, 'close').then(() => {
      throw new Error(`the daemon ended before it was ready:\n${this.#log}`);
    });
    ended.catch(() => {});
    await Promise.race([ended, ready]);
    return this;
  }

  status(): Promise<Status> {
    return this.get<Status>('/v1/status');
  }

  /** Finished calls, oldest first. */
  async calls(): Promise<CallRecord[]> {
    return parseLines<CallRecord>(await this.text('/v1/calls?limit=100000'));
  }

  async liveCalls(): Promise<LiveCall[]> {
    return parseLines<LiveCall>(await this.text('/v1/calls?limit=0&live=1'));
  }

  async events(): Promise<Event[]> {
    return parseLines<Event>(await this.text('/v1/events'));
  }

  /** Resolves with the first event, remembered or to come, that satisfies the test. */
  async event(test: (event: Event) => boolean, timeoutMs = 60_000): Promise<Event> {
    const signal = AbortSignal.timeout(timeoutMs);
    let rest = '';
    for await (const chunk of await this.#stream('/v1/events?follow=1', signal)) {
      rest += chunk;
      const lines = rest.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const event = JSON.parse(line) as Event;
        if (test(event)) return event;
      }
    }
    throw new Error('the daemon ended the event stream');
  }

  async get<T>(path: string): Promise<T> {
    return JSON.parse(await this.text(path)) as T;
  }

  async text(path: string): Promise<string> {
    let body = '';
    for await (const chunk of await this.#stream(path)) body += chunk;
    return body;
  }

  /** Environment for a wrapper that is to use this daemon. */
  env(extra: Record<string, string> = {}): Record<string, string> {
    // A bash whose standard input is a socket, as Node's pipes are, takes itself for a remote shell and
    // reads ~/.bashrc: the user's must not be in the way.
    const own = { HOME: this.dir, AGENTRM_SOCKET: this.socket };
    return { ...(process.env as Record<string, string>), ...own, ...extra };
  }

  /** Runs `agentrm-bash -c COMMAND`. */
  run(command: string, options: RunOptions = {}): Promise<Ran> {
    const [file = agentrmBash, ...args] = [...this.agent, agentrmBash, '-c', command];
    return runCommand(file, args, { ...options, env: this.env(options.env) });
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** kill -9, as by the OOM killer. */
  async crash(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }

  /** Waits until it ends by itself. @returns its exit status. */
  async ended(): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    return child.exitCode;
  }

  /** A clean stop. @returns its exit status. */
  async stop(): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    }
    return child.exitCode;
  }

  /** Stops it and removes its files. */
  async close(): Promise<void> {
    await this.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  #stream(path: string, signal?: AbortSignal): Promise<AsyncIterable<string>> {
    return new Promise((resolve, reject) => {
      // A connection of its own: one that was kept is closed after 5 s, perhaps as it is used again.
      const own = { socketPath: this.socket, path, agent: false } as const;
      const options = { ...own, ...(signal === undefined ? {} : { signal }) };
      const sent = request(options, (response) => {
        response.setEncoding('utf8');
        resolve(response);
      });
      sent.on('error', reject);
      sent.end();
    });
  }
}

/** Waits for what has no event that a test could wait on. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not so after 60 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

let counter = 0;

/** Runs a program to its end. */
export async function runCommand(file: string, args: string[], options: RunOptions = {}): Promise<Ran> {
  const child = execFile(file, args, {
    env: options.env ?? process.env,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
    ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: 'SIGKILL' }),
  });
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr?.on('data', (chunk: string) => {
    stderr += chunk;
  });
  // EPIPE: it ended without reading.
  child.stdin?.on('error', () => {});
  child.stdin?.end(options.input ?? '');
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { code, signal, stdout, stderr };
}

function parseLines<T>(text: string): T[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as T);
}
