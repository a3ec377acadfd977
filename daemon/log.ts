// SPDX-License-Identifier: Apache-2.0
import { fstatSync } from 'node:fs';
import pino from 'pino';
import { LogSink } from './log-sink.ts';

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

/** syslog(3) priorities of pino's levels. */
const priorities: Readonly<Record<number, number>> = { 10: 7, 20: 7, 30: 6, 40: 4, 50: 3, 60: 2 };

/**
 * Makes the daemon's logger: one JSON object a line, written off the main thread and never waited for.
 * Under journald each line begins with `<N>` (sd-daemon(3)), so that `journalctl -p warning` works.
 * @throws Error with errno if `fd` is not open.
 */
export function createLogger(options: LogOptions): Log {
  const fd = options.fd ?? 1;
  const sink = new LogSink(fd, options.onDrop ?? (() => {}));
  const settings: pino.LoggerOptions = {
    level: options.level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  };
  const log = pino(settings, (options.journal ?? isJournal(process.env, fd)) ? prefixed(sink) : sink);
  sinks.set(log, sink);
  return log;
}

/** Writes what waits, for the end of the process; for a logger of {@link createLogger}, not its children. */
export function flushLog(log: Log): void {
  sinks.get(log)?.flushSync();
}

const sinks = new WeakMap<Log, LogSink>();

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

/** pino sets `lastLevel` before each write on a stream that carries its metadata symbol. */
function prefixed(sink: LogSink) {
  return {
    [Symbol.for('pino.metadata')]: true,
    lastLevel: 30,
    write(line: string): void {
      sink.write(`<${priorities[this.lastLevel] ?? 6}>${line}`);
    },
  };
}
