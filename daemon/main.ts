// SPDX-License-Identifier: Apache-2.0
import { type Reading, readConfig } from './config/reading.ts';
import type { Config } from './config/schema.ts';
import type { Daemon } from './daemon.ts';
import { messageOf } from './errors.ts';
import { native } from './kernel/native.ts';
import { createLogger, flushLog } from './log.ts';

/** As the command line tool: 1 failed, 2 usage or configuration. */
const FAILED = 1;
const USAGE = 2;

/**
 * After this, and what the proxy may drain, a stop is no longer waited for: systemd's own patience is 90 s,
 * but an agent host that shuts down should not hang on us.
 */
const STOP_DEADLINE_MS = 5000;

const args = process.argv.slice(2);
const reading = readConfig(args);
// What most starts need is loaded while it is read. What fails here fails again below, where it is told.
if (!args.includes('--proxy-only')) import('./daemon.ts').catch(() => {});
const { config, proxyOnly, untilStdinEnds, version } = await firstOf(reading);

let { drainMs } = config.proxy;
let logLinesDropped = 0;
const log = createLogger({
  level: config.log.level,
  onDrop: () => {
    logLinesDropped += 1;
  },
});

const unreachable = Promise.withResolvers<void>();

try {
  const daemon = await start();

  let stopping = false;
  let reloading = false;
  let reloadAgain = false;
  process.on('SIGHUP', async () => {
    // One at a time, and once more for all that come meanwhile: what they are sent for may have been read, or not yet.
    reloadAgain = true;
    if (reloading) return;
    reloading = true;
    while (reloadAgain && !stopping) {
      reloadAgain = false;
      notify('RELOADING=1');
      const next = await readAgain();
      if (stopping) return;
      const problem = typeof next === 'string' ? next : inForce(daemon, next);
      if (problem === undefined) {
        log.info('configuration reloaded');
      } else {
        daemon.reloadFailed();
        log.error({ problem }, 'configuration kept');
      }
      notify('READY=1');
    }
    reloading = false;
  });

  const stop = (why: object, code: number): void => {
    if (stopping) return;
    stopping = true;
    log.info(why, 'stopping');
    setTimeout(() => exit(FAILED), drainMs + STOP_DEADLINE_MS).unref();
    daemon.close().then(
      () => exit(code),
      (error: unknown) => {
        log.error({ err: error }, 'stop failed');
        exit(FAILED);
      },
    );
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop({ signal }, 0));
  // Also for who is killed: the kernel closes what it held.
  if (untilStdinEnds) {
    const ended = () => stop({ reason: 'standard input ended' }, 0);
    process.stdin
      .on('error', () => {})
      .once('close', ended)
      .resume();
  }
  // Not 0: whoever looks after it is to start another.
  void unreachable.promise.then(() => stop({ reason: 'unreachable' }, FAILED));
} catch (error) {
  process.stderr.write(`agentrmd: ${messageOf(error)}\n`);
  exit(FAILED);
}

/** Tells why there is none, and ends. */
async function firstOf(reading: ReturnType<typeof readConfig>): Promise<Reading & { ok: true }> {
  try {
    const read = await reading;
    if ('exitCode' in read) process.exit(read.exitCode);
    if (read.ok) return read;
    for (const problem of read.problems) process.stderr.write(`agentrmd: ${problem}\n`);
    process.exit(USAGE);
  } catch (error) {
    process.stderr.write(`agentrmd: ${messageOf(error)}\n`);
    process.exit(FAILED);
  }
}

/** One of the two is started: without privileges there is no addon, and each has its own memory to look after. */
async function start(): Promise<Daemon> {
  if (proxyOnly) {
    const { startCoreAlone } = await import('./core/alone.ts');
    const alone = await startCoreAlone(config, log);
    notify('READY=1\nSTATUS=proxy only');
    return alone;
  }
  const { startDaemon } = await import('./daemon.ts');
  return startDaemon(config, log, () => logLinesDropped, unreachable.resolve);
}

/** @returns why there is none, or the new configuration. */
async function readAgain(): Promise<Config | string> {
  try {
    const read = await readConfig(args);
    if ('exitCode' in read) return `reading it ended with status ${read.exitCode}`;
    if (!read.ok) return read.problems.join('; ');
    return read.version === version ? read.config : `agentrm ${read.version} was installed: needs a restart`;
  } catch (error) {
    return messageOf(error);
  }
}

/** @returns why it is not in force, or undefined if it is. */
function inForce(daemon: Daemon, config: Config): string | undefined {
  try {
    daemon.reload(config);
    ({ drainMs } = config.proxy);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** The proxy alone does without the addon where there is none. */
function notify(state: string): void {
  try {
    native().notify(state);
  } catch (error) {
    if (!proxyOnly) throw error;
  }
}

function exit(code: number): never {
  flushLog(log);
  process.exit(code);
}
