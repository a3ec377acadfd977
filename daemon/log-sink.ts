// SPDX-License-Identifier: Apache-2.0
import { constants, fstatSync, openSync, readFileSync, write, writeSync } from 'node:fs';

/**
 * Bytes of log that wait for a slow reader before lines are dropped: some thousand lines, and small
 * beside the daemon. Waiting instead would stop the daemon, and with it every decision on a frozen call.
 */
const MAX_WAITING_BYTES = 1024 * 1024;

/** How soon a full pipe that does not block is tried again. */
const RETRY_MS = 100;

/** A write that takes longer means a reader that has stopped reading: not worth hanging for at the end. */
const STUCK_MS = 100;

/**
 * Writes lines to a file descriptor off the main thread, in order, and drops them rather than wait or
 * fail. Not pino's own destination: its flush at the end repeats a write for ever if the reader has gone.
 */
export class LogSink {
  readonly #fd: number;
  readonly #onDrop: () => void;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #scheduled = false;
  #busySinceMs: number | undefined;

  /** @throws Error with errno if `fd` is not open. */
  constructor(fd: number, onDrop: () => void) {
    this.#fd = fstatSync(fd).isFile() && !appends(fd) ? fd : withoutBlocking(fd);
    this.#onDrop = onDrop;
  }

  write(line: string): void {
    const bytes = Buffer.from(line);
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) {
      this.#onDrop();
      return;
    }
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#scheduled || this.#busySinceMs !== undefined) return;
    this.#scheduled = true;
    // Later, so that the lines of one turn of the loop are one write, and the last words of a process
    // that ends in this turn are still here for `flushSync`.
    setImmediate(() => {
      this.#scheduled = false;
      this.#next();
    });
  }

  /**
   * Writes what waits before the process ends; gives up on a reader that does not read. It may overtake
   * a write under way, which ends before the process does.
   */
  flushSync(): void {
    if (this.#busySinceMs !== undefined && performance.now() - this.#busySinceMs > STUCK_MS) return;
    let chunk = this.#take();
    try {
      while (chunk.length > 0) chunk = chunk.subarray(writeSync(this.#fd, chunk));
    } catch {
      this.#onDrop();
    }
  }

  #take(): Buffer {
    const chunk = Buffer.concat(this.#waiting);
    this.#waiting = [];
    this.#waitingBytes = 0;
    return chunk;
  }

  #next(): void {
    if (this.#waiting.length === 0 || this.#busySinceMs !== undefined) return;
    this.#busySinceMs = performance.now();
    this.#send(this.#take());
  }

  #send(chunk: Buffer): void {
    write(this.#fd, chunk, (error, written) => {
      if (error?.code === 'EAGAIN') {
        setTimeout(() => this.#send(chunk), RETRY_MS).unref();
        return;
      }
      if (error) this.#onDrop();
      else if (written < chunk.length) return this.#send(chunk.subarray(written));
      this.#busySinceMs = undefined;
      this.#next();
    });
  }
}

/**
 * Whether what is written to it goes to the end of the file. If not, whoever else writes to the same descriptor must share its
 * position, which a file that is opened once more does not.
 */
function appends(fd: number): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
  return (Number.parseInt(flags ?? '0', 8) & constants.O_APPEND) !== 0;
}

/**
 * The same pipe, terminal or file opened once more, so that a full one says so: a write that blocks
 * would keep a thread, and the process from ending. A socket cannot be opened so: with a journald that
 * hangs, systemd's stop timeout ends the daemon.
 */
function withoutBlocking(fd: number): number {
  const { O_WRONLY, O_APPEND, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    return openSync(`/dev/fd/${fd}`, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY);
  } catch {
    return fd;
  }
}
