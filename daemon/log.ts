// SPDX-License-Identifier: Apache-2.0
import { fstatSync } from 'node:fs';
import pino from 'pino';

export const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type Level = (typeof levels)[number];

/** `log.warn({ session, usedBytes }, 'call frozen')`: values in fields, a constant lower-case message. */
export type Log = pino.Logger;

export interface LogOptions {
  readonly level: Level;
  /** File descriptor that lines go to; default 1, where journald and containers listen. */
  readonly fd?: number;
  /** Prefix lines with journald priorities; default: whether journald reads `fd`. */
  readonly journal?: boolean;
  /** Called for each line that was dropped because the reader of `fd` does not keep up. */
  readonly onDrop?: () => void;
}

/**
 * Bytes of log that wait for a slow reader before lines are dropped: some thousand lines, and small
 * beside the daemon. Waiting instead would stop the daemon, and with it every decision on a frozen call.
 */
const MAX_BUFFERED_BYTES = 1024 * 1024;

/** syslog(3) priorities of pino's levels. */
const priorities: Readonly<Record<number, number>> = { 10: 7, 20: 7, 30: 6, 40: 4, 50: 3, 60: 2 };

/**
 * Makes the daemon's logger: one JSON object a line, written off the main thread and never waited for.
 * Under journald each line begins with `<N>` (sd-daemon(3)), so that `journalctl -p warning` works.
 * @throws Error with errno if `fd` is not open.
 */
export function createLogger(options: LogOptions): Log {
  const fd = options.fd ?? 1;
  const stream = pino.destination({ fd, sync: false, maxLength: MAX_BUFFERED_BYTES });
  // Nothing can be reported about a log that cannot be written; the daemon goes on without it.
  stream.on('error', () => options.onDrop?.());
  stream.on('drop', () => options.onDrop?.());
  const settings: pino.LoggerOptions = {
    level: options.level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  return pino(settings, (options.journal ?? isJournal(process.env, fd)) ? journalStream(stream) : stream);
}

/** Writes what is still buffered, waiting for it: for the end of the process only. */
export function flushLog(log: Log): void {
  const stream: unknown = Reflect.get(log, pino.symbols.streamSym);
  if (!isFlushable(stream)) return;
  try {
    stream.flushSync();
  } catch {
    // The reader has gone, or nothing was ever written.
  }
}

/** Whether journald reads `fd`: systemd names its device and inode in JOURNAL_STREAM (systemd.exec(5)). */
export function isJournal(env: NodeJS.ProcessEnv, fd: number): boolean {
  if (env.JOURNAL_STREAM === undefined) return false;
  try {
    const stat = fstatSync(fd);
    return env.JOURNAL_STREAM === `${stat.dev}:${stat.ino}`;
  } catch {
    return false;
  }
}

interface Flushable {
  flushSync(): void;
}

function isFlushable(stream: unknown): stream is Flushable {
  return typeof stream === 'object' && stream !== null && 'flushSync' in stream;
}

/** pino sets `lastLevel` before each write on a stream that carries its metadata symbol. */
function journalStream(stream: ReturnType<typeof pino.destination>) {
  return {
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 30,
    write(line: string): void {
      stream.write(`<${priorities[this.lastLevel] ?? 6}>${line}`);
    },
    flushSync(): void {
      stream.flushSync();
    },
  };
}
