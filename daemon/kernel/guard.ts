// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { distDir } from '../own-program.ts';

/** Said on the pipe before it is closed: this is a clean stop, nothing is left frozen. */
const QUIT = 'q';

export interface GuardOptions {
  readonly rootPath: string;
  readonly heartbeatPath: string;
  readonly pinDir: string;
  /** The guard has ended although nobody asked it to. */
  readonly onExit: (reason: string) => void;
}

/**
 * The small process that thaws everything if the daemon dies or hangs. It is in a session of its own,
 * so that what kills the daemon's process group leaves it alone.
 */
export class Guard {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #stopping = false;

  private constructor(child: ChildProcess, onExit: (reason: string) => void) {
    this.#child = child;
    this.#ended = new Promise((resolve) => {
      const end = (reason: string): void => {
        resolve();
        if (!this.#stopping) onExit(reason);
      };
      // If it could not be started there is only an error, and never an exit.
      if (child.pid === undefined) child.once('error', (error) => end(error.message));
      else child.once('exit', (code, signal) => end(`ended with ${signal ?? code}`));
    });
    // EPIPE: it has gone, which `exit` tells.
    child.stdin?.on('error', () => {});
    child.unref();
  }

  /** Undefined if the helper was not built or installed. */
  static start(options: GuardOptions): Guard | undefined {
    const path = `${distDir}agentrm-guard`;
    if (!existsSync(path)) return undefined;
    const args = [
      '--cgroup',
      options.rootPath,
      '--heartbeat',
      options.heartbeatPath,
      '--pins',
      options.pinDir,
    ];
    // Not the service manager's business: it takes notifications from the daemon only.
    const { NOTIFY_SOCKET: _, ...env } = process.env;
    const child = spawn(path, args, { detached: true, stdio: ['pipe', 'ignore', 'inherit'], env });
    return new Guard(child, options.onExit);
  }

  /** Dismisses the guard; call it only when nothing is frozen any more. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#child.stdin?.end(QUIT);
    await this.#ended;
  }
}
