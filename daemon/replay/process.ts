// SPDX-License-Identifier: Apache-2.0
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { messageOf } from '../errors.ts';
import { distDir } from '../own-program.ts';
import type { Trace } from './trace.ts';

const NS_PER_MS = 1e6;
/** What a process that fails has to say is one line; the wrapper adds a few. */
const MAX_STDERR = 4096;

export const replayProgram = `${distDir}agentrm-replay`;

/** When and how fast a trace is replayed. */
export interface Orders {
  readonly trace: Trace;
  /** Trace time is divided by it. */
  readonly speed: number;
  /** Held all the time, beside what the trace says. */
  readonly baseBytes: number;
  /** CLOCK_MONOTONIC, as process.hrtime has it. */
  readonly startNs: bigint;
}

/** How the process of a session ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Absent unless it got to the end of its trace. */
  readonly report?: ReplayReport;
  readonly stderr: string;
}

/** What agentrm-replay prints at its end. */
export interface ReplayReport {
  readonly totalNs: number;
  readonly lateNs: number;
  readonly growthsNs: readonly number[];
}

/** The orders as agentrm-replay reads them. */
export function orderText({ trace, speed, baseBytes, startNs }: Orders): string {
  const steps = trace.map(({ atMs, bytes }) => `${Math.round((atMs * NS_PER_MS) / speed)} ${bytes}\n`);
  return `${startNs} ${baseBytes} ${steps.length}\n${steps.join('')}`;
}

/** One session: a process that replays a trace when it is told to. */
export class ReplayProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #ended: Promise<Ended>;
  #lines: string[] = [];
  #ready: () => void = () => {};
  readonly #isReady: Promise<void>;

  /**
   * @param command the program, or a wrapper that runs it.
   * @param env for a wrapper.
   */
  constructor(command: readonly [string, ...string[]], env: NodeJS.ProcessEnv = {}) {
    const [file, ...args] = command;
    // A group of its own: ^C on the terminal is for agentrm, which then ends its sessions in its own order.
    this.#child = spawn(file, args, { env, stdio: ['pipe', 'pipe', 'pipe'], detached: true });
    this.#isReady = new Promise((resolve) => {
      this.#ready = resolve;
    });
    this.#ended = this.#watch();
    // Its result is asked for later, or never if the run fails before.
    this.#ended.catch(() => {});
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error('the process of a session did not start');
    return pid;
  }

  /**
   * Resolves when it waits for its orders.
   * @throws Error if it does not get so far.
   */
  async ready(): Promise<void> {
    const ended = this.#ended.then(({ code, signal, stderr }) => {
      throw new Error(`a session ended with ${signal ?? code} before it could start: ${stderr.trim()}`);
    });
    await Promise.race([this.#isReady, ended]);
  }

  /** Tells it what to replay; it starts at `startNs`. */
  start(orders: Orders): void {
    // Standard input stays open: its end would tell the process that nobody waits for it any more.
    this.#child.stdin.write(orderText(orders));
  }

  /** @throws Error if it could not be started, or printed something else than it should. */
  ended(): Promise<Ended> {
    return this.#ended;
  }

  /** For a run that fails; one that is managed or in a cgroup is ended by that. */
  kill(): void {
    this.#child.stdin.destroy();
    this.#child.kill('SIGKILL');
  }

  async #watch(): Promise<Ended> {
    const child = this.#child;
    // EPIPE: it was killed, which is a result.
    child.stdin.on('error', () => {});
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      stderr = (stderr + chunk).slice(0, MAX_STDERR);
    });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      stdout += chunk;
      this.#lines = stdout.split('\n');
      if (this.#lines[0] === 'ready') this.#ready();
    });
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    const ended = { code, signal, stderr };
    return code === 0 ? { ...ended, report: parseReport(this.#lines[1] ?? '') } : ended;
  }
}

function parseReport(line: string): ReplayReport {
  try {
    const report: unknown = JSON.parse(line);
    if (isReport(report)) return report;
  } catch (error) {
    throw new Error(`agentrm-replay said ${JSON.stringify(line.slice(0, 80))}: ${messageOf(error)}`);
  }
  throw new Error(`agentrm-replay said ${JSON.stringify(line.slice(0, 80))}`);
}

function isReport(value: unknown): value is ReplayReport {
  if (typeof value !== 'object' || value === null) return false;
  const { totalNs, lateNs, growthsNs } = value as Partial<Record<keyof ReplayReport, unknown>>;
  return typeof totalNs === 'number' && typeof lateNs === 'number' && Array.isArray(growthsNs);
}
