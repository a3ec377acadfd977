// SPDX-License-Identifier: Apache-2.0
import { existsSync } from 'node:fs';
import type { ControlServer } from './control/server.ts';
import { AgentrmError, errnoOf } from './errors.ts';
import type { Heartbeat, Native } from './kernel/native.ts';

/**
 * How often it is looked for the files: a call that comes between their removal and the next look runs unmanaged, and a
 * look costs two system calls. Watching the directory would not see its own removal without watching its parents.
 */
const LOOK_MS = 1000;

/**
 * Looks that fail in a row before it is given up. Below ProtectSystem=strict the directory is a mount of its own: once it
 * is removed, nothing can be made there but by systemd, at the next start. What else fails has passed by then.
 */
const MOST_FAILED_LOOKS = 5;

/** A start would meet them too, and find less than what still works. */
const NO_ROOM: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'EMFILE', 'ENFILE', 'ENOMEM']);

export interface RuntimeFilesOptions {
  readonly native: Native;
  readonly server: ControlServer;
  readonly heartbeatPath: string;
  /** Both were there again when this is called; the directory may have been made anew. */
  readonly onRestored: (path: 'socket' | 'heartbeat') => void;
  readonly onError: (error: unknown) => void;
  /** They cannot be had by this process; called once. */
  readonly onLost: () => void;
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
  #failedLooks = 0;

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
    const { heartbeatPath, native, onError, onLost, onRestored, server } = this.#options;
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
      this.#failedLooks = 0;
    } catch (error) {
      this.#failedLooks += 1;
      // Once, and not each second.
      if (this.#failedLooks === 1) onError(error);
      if (this.#failedLooks >= MOST_FAILED_LOOKS && !NO_ROOM.has(errnoBelow(error))) {
        clearInterval(this.#timer);
        onLost();
      }
    } finally {
      this.#looking = false;
    }
  }
}

/** What the kernel said, also of what the server could not do. */
function errnoBelow(error: unknown): string | undefined {
  return errnoOf(error instanceof AgentrmError ? error.cause : error);
}
