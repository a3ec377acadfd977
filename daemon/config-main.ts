// SPDX-License-Identifier: Apache-2.0
// What agentrmd reads its command line and its configuration with, in a process of its own; see config/reading.ts.
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { serialize } from 'node:v8';
import { Command, CommanderError } from 'commander';
import { loadConfig } from './config/load.ts';
import type { Reading } from './config/reading.ts';
import { formatProblem } from './config/source.ts';
import { version } from './version.ts';

const ANSWER_FD = 3;
/** As the command line tool. */
const USAGE = 2;

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
  .option('--socket <path>', 'the control socket', fromHere)
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

/** A path as whoever starts it means it. */
function fromHere(path: string): string {
  return path === '' || path === 'auto' ? path : resolve(path);
}

const options = program.opts<Options>();
const { config: file, socket, cgroup, logLevel, proxyOnly = false, untilStdinEnds = false } = options;
const loaded = loadConfig({ file, flags: { socket, cgroup, logLevel } });
const reading: Reading = loaded.ok
  ? { ok: true, config: loaded.config, proxyOnly, untilStdinEnds, version: version() }
  : { ok: false, problems: loaded.problems.map(formatProblem) };
// Not JSON: a limit of `max` is Infinity.
writeFileSync(ANSWER_FD, serialize(reading));
