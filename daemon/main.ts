// SPDX-License-Identifier: Apache-2.0
import { Command, CommanderError } from 'commander';
import { type Flags, type Loaded, loadConfig } from './config/load.ts';
import { formatProblem } from './config/source.ts';
import type { Daemon } from './daemon.ts';
import { messageOf } from './errors.ts';
import { native } from './kernel/native.ts';
import { createLogger, flushLog } from './log.ts';
import { version } from './version.ts';

/** As the command line tool: 1 failed, 2 usage or configuration. */
const FAILED = 1;
const USAGE = 2;

/**
 * After this, and what the proxy may drain, a stop is no longer waited for: systemd's own patience is 90 s,
 * but an agent host that shuts down should not hang on us.
 */
const STOP_DEADLINE_MS = 5000;

interface Options {
  readonly config?: string;
  readonly socket?: string;
  readonly cgroup?: string;
  readonly logLevel?: string;
  readonly proxyOnly?: boolean;
  readonly untilStdinEnds?: boolean;
}

const program = new Command('agentrmd')
  .description('puts every tool call of every agent on this host into a cgroup with limits of its own')
  .version(version())
  .option('--config <file>', 'this configuration file instead of those in /etc/agentrm')
  .option('--socket <path>', 'the control socket')
  .option('--cgroup <path>', 'the cgroup below which calls get theirs')
  .option('--log-level <level>', 'trace, debug, info, warn, error or fatal')
  .option('--proxy-only', 'only the proxy for model APIs: needs neither root nor cgroups')
  .option('--until-stdin-ends', 'stop when standard input ends, and so with whoever holds its other end')
  .exitOverride();

try {
  program.parse();
} catch (error) {
  process.exit(error instanceof CommanderError && error.exitCode === 0 ? 0 : USAGE);
}

const options = program.opts<Options>();
const flags: Flags = {
  socket: options.socket,
  cgroup: options.cgroup,
  logLevel: options.logLevel,
};
const load = (): Loaded => loadConfig({ file: options.config, flags });

const loaded = load();
if (!loaded.ok) {
  for (const problem of loaded.problems) process.stderr.write(`agentrmd: ${formatProblem(problem)}\n`);
  process.exit(USAGE);
}

let { drainMs } = loaded.config.proxy;
let logLinesDropped = 0;
const log = createLogger({
  level: loaded.config.log.level,
  onDrop: () => {
    logLinesDropped += 1;
  },
});

const unreachable = Promise.withResolvers<void>();

try {
  const daemon = await start();

  process.on('SIGHUP', () => {
    notify('RELOADING=1');
    const problem = reload(daemon);
    if (problem === undefined) {
      log.info('configuration reloaded');
    } else {
      daemon.reloadFailed();
      log.error({ problem }, 'configuration kept');
    }
    notify('READY=1');
  });

  let stopping = false;
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
  if (options.untilStdinEnds) {
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

/** One of the two is loaded: without privileges there is no addon, and each has its own memory to look after. */
async function start(): Promise<Daemon> {
  if (!loaded.ok) throw new Error('no configuration');
  if (options.proxyOnly) {
    const { startCoreAlone } = await import('./core/alone.ts');
    const alone = await startCoreAlone(loaded.config, log);
    notify('READY=1\nSTATUS=proxy only');
    return alone;
  }
  const { startDaemon } = await import('./daemon.ts');
  return startDaemon(loaded.config, log, () => logLinesDropped, unreachable.resolve);
}

/** @returns why the new configuration is not in force, or undefined if it is. */
function reload(daemon: Daemon): string | undefined {
  const again = load();
  if (!again.ok) return again.problems.map(formatProblem).join('; ');
  try {
    daemon.reload(again.config);
    ({ drainMs } = again.config.proxy);
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
    if (!options.proxyOnly) throw error;
  }
}

function exit(code: number): never {
  flushLog(log);
  process.exit(code);
}
