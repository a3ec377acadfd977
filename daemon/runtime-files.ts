// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import type { ControlServer } from './control/server.ts';
import type { Heartbeat, Native } from './kernel/native.ts';

/**
 * How often it is looked for the files: a call that comes between their removal and the next look runs unmanaged, and a
 * look costs two system calls. Watching the directory would not see its own removal without watching its parents.
 */
const LOOK_MS = 1000;

export interface RuntimeFilesOptions {
  readonly native: Native;
  readonly server: ControlServer;
  readonly heartbeatPath: string;
  /** Both were there again when this is called; the directory may have been made anew. */
  readonly onRestored: (path: 'socket' | 'heartbeat') => void;
  readonly onError: (error: unknown) => void;
}

/**
 * Keeps the socket and the heartbeat where others look for them. A tool that cleans up /run, or `rm -r`, would otherwise
 * leave a daemon that no wrapper reaches and that its guard takes for dead.
 */
export class RuntimeFiles {
  readonly #options: RuntimeFilesOptions;
  readonly #timer: NodeJS.Timeout;
  #heartbeat: Heartbeat;
  #looking = false;
  #failed = false;

  constructor(options: RuntimeFilesOptions) {
    this.#options = options;
    this.#heartbeat = options.native.openHeartbeat(options.heartbeatPath);
    this.#timer = setInterval(() => void this.#look(), LOOK_MS).unref();
  }

  /** Shows the guard, and wrappers that wait, that the daemon runs. */
  beat(): void {
    this.#heartbeat.beat();
  }

  close(): void {
    clearInterval(this.#timer);
    this.#heartbeat.close();
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const { heartbeatPath, native, onError, onRestored, server } = this.#options;
    try {
      // First: it makes the directory if that has gone.
      if (await server.listenAgain()) onRestored('socket');
      if (!existsSync(heartbeatPath)) {
        const gone = this.#heartbeat;
        this.#heartbeat = native.openHeartbeat(heartbeatPath);
        this.#heartbeat.beat();
        gone.close();
        onRestored('heartbeat');
      }
      this.#failed = false;
    } catch (error) {
      // Once, and not each second.
      if (!this.#failed) onError(error);
      this.#failed = true;
    } finally {
      this.#looking = false;
    }
  }
}
