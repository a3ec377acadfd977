// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { distDir } from '../own-program.ts';

/** What the daemon says last is what matters if it fails. */
const MAX_LOG = 4096;

/** An agentrmd for one run: its files are in a directory of its own, its pins in another, its cgroup is given. */
export class PrivateDaemon {
  readonly socket: string;
  /** How it ended, with the last lines of its log. */
  readonly ended: Promise<string>;
  readonly #child: ChildProcess;
  readonly #dirs: readonly string[];
  #log = '';

  private constructor(cgroup: string, budgetBytes: number) {
    const dir = mkdtempSync(join(tmpdir(), 'agentrm-replay-'));
    const pinDir = `/sys/fs/bpf/agentrm-replay-${process.pid}`;
    this.#dirs = [dir, pinDir];
    this.socket = join(dir, 'run/agentrm.sock');
    const config = join(dir, 'agentrmd.yaml');
    const settings = {
      stateDir: join(dir, 'state'),
      pinDir,
      pool: { budget: String(budgetBytes) },
      proxy: { listen: 'off' },
    };
    // JSON is YAML.
    writeFileSync(config, JSON.stringify(settings));
    const args = ['--config', config, '--socket', this.socket, '--cgroup', cgroup, '--until-stdin-ends'];
    // A group of its own: ^C on the terminal is for agentrm, which stops it after its calls.
    this.#child = spawn(`${distDir}agentrmd`, args, {
      // Settings in the environment are for the daemon of this host.
      env: { PATH: process.env.PATH, HOME: dir },
      // Nothing is written to it: it ends with this process, kill -9 included, and the daemon with that.
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    this.ended = this.#watch();
    this.ended.catch(() => {});
  }

  /**
   * Resolves when it answers.
   * @throws Error with the end of its log if it does not start.
   */
  static async start(cgroup: string, budgetBytes: number): Promise<PrivateDaemon> {
    const daemon = new PrivateDaemon(cgroup, budgetBytes);
    try {
      await daemon.#ready();
      return daemon;
    } catch (error) {
      await daemon.close();
      throw error;
    }
  }

  /** Stops it, and removes its files; also if it has ended by itself. */
  async close(): Promise<void> {
    this.#child.kill('SIGTERM');
    // If it could not even be started, there is nothing to wait for.
    await this.ended.catch(() => {});
    for (const dir of this.#dirs) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }

  async #ready(): Promise<void> {
    const ready = new Promise<void>((resolve) => {
      // Logged when the socket answers.
      this.#child.stdout?.on('data', () => {
        if (this.#log.includes('"msg":"ready"')) resolve();
      });
    });
    const ended = this.ended.then((how) => {
      throw new Error(`the daemon of the run did not start: ${how}`);
    });
    await Promise.race([ready, ended]);
  }

  async #watch(): Promise<string> {
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        this.#log = (this.#log + chunk).slice(-MAX_LOG);
      });
    }
    const [code, signal] = (await once(this.#child, 'close')) as [number | null, NodeJS.Signals | null];
    return `${signal ?? `status ${code}`}: ${this.#log.trim()}`;
  }
}
