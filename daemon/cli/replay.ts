// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:os';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { AgentrmError, messageOf } from '../errors.ts';
import { hostMemory } from '../kernel/host.ts';
import { native } from '../kernel/native.ts';
import { ARMS, type Arm, defaultClasses } from '../replay/arms.ts';
import { measureAlone, type RunRecord, runOnce } from '../replay/experiment.ts';
import type { Session } from '../replay/run.ts';
import { readTrace, type Trace, TraceError } from '../replay/trace.ts';
import { CALL_CLASSES, type CallClass } from '../toolcall/intent.ts';
import { formatBytes, formatMs, MAX_DURATION_MS, parseDuration, parseSize } from '../units.ts';
import type { GlobalOptions } from './command.ts';
import { jsonLine, plain, print } from './output.ts';
import { printReplay } from './replay-table.ts';

/** Many more sessions than one host runs at once. */
const MOST_SESSIONS = 1000;
const MOST_RUNS = 10_000;

interface Options extends GlobalOptions {
  readonly trace: readonly string[];
  readonly class?: readonly CallClass[];
  readonly limit: number;
  readonly arm: Arm;
  readonly speed: number;
  readonly runs: number;
  readonly baseMemory: number;
  readonly stagger: number;
  readonly lowHigh?: number;
}

export function define(command: Command): void {
  command
    .addOption(
      new Option(
        '--trace <file...>',
        'what each session holds, and when; the first one is the one that counts',
      ).makeOptionMandatory(),
    )
    .addOption(
      new Option('--class <class...>', `of each trace: ${CALL_CLASSES.join(', ')}`).argParser<CallClass[]>(
        (text, before = []) => [...before, callClass(text)],
      ),
    )
    .addOption(
      new Option('--limit <size>', 'memory of all sessions together').argParser(size).makeOptionMandatory(),
    )
    .addOption(new Option('--arm <name>', 'who keeps them within it').choices(ARMS).default('agentrm'))
    .addOption(new Option('--speed <factor>', 'how much faster than recorded').argParser(speed).default(1))
    .addOption(new Option('--runs <number>', 'how often').argParser(runs).default(1))
    .addOption(
      new Option('--base-memory <size>', 'held by every session beside its trace')
        .argParser(size)
        .default(0, '0'),
    )
    .addOption(
      new Option('--stagger <time>', 'from the start of one session to that of the next')
        .argParser(duration)
        .default(0, '0'),
    )
    .addOption(
      new Option(
        '--low-high <size>',
        'memory.high of low sessions with --arm high (default: limit / sessions)',
      ).argParser(size),
    )
    .addHelpText('after', help)
    .action(async () => {
      const options = command.optsWithGlobals<Options>();
      const sessions = sessionsOf(command, options);
      const { totalBytes } = hostMemory();
      if (options.limit > totalBytes) {
        process.stderr.write(
          `agentrm: --limit: this host has ${formatBytes(totalBytes)}, which may be short first\n`,
        );
      }
      if (process.getuid?.() !== 0) throw new Error('replay needs root: it makes cgroups with limits');
      try {
        await withSignals((signal) => run(options, sessions, signal));
      } catch (error) {
        if (!(error instanceof AgentrmError && error.code === 'AGENTRM_ERR_CGROUP')) throw error;
        throw new Error(`replay needs cgroup v2 with memory: ${error.message}`, { cause: error });
      }
    });
}

const help = `
Replays recorded memory of sessions as processes that use as much real memory, in cgroups under a common limit, in
one of these arms:
  none     nobody: the kernel's OOM killer
  static   each session has its share as memory.max
  high     low sessions have their share as memory.high
  freeze   low sessions stand still until the high one is done
  agentrm  a daemon of its own, whose pool is the limit
A trace is JSON: [[seconds, megabytes], ...], or a resources.json of AgentCgroup. Needs root and cgroup v2.`;

async function run(options: Options, sessions: readonly Session[], signal: AbortSignal): Promise<void> {
  const { arm, limit, speed, runs, baseMemory, lowHigh, json } = options;
  const addon = native();
  const common = { sessions, speed, baseBytes: baseMemory, signal };
  const alone = await measureAlone(addon, common);
  const records: RunRecord[] = [];
  for (let number = 1; number <= runs; number += 1) {
    const high = lowHigh === undefined ? {} : { lowHighBytes: lowHigh };
    const record = await runOnce(addon, { ...common, ...high, arm, limitBytes: limit }, number, alone);
    records.push(record);
    if (json) await printAndSettle(jsonLine(record));
    else tell(record, runs);
  }
  if (!json) await printReplay(records);
}

/** The next run must not begin before it is known whether anybody still reads: that may end this process. */
async function printAndSettle(line: string): Promise<void> {
  await print(line);
  await new Promise(setImmediate);
}

/** A line for who waits. */
function tell({ run, sessions }: RunRecord, runs: number): void {
  if (!process.stderr.isTTY) return;
  const alive = sessions.filter(({ survived }) => survived).length;
  process.stderr.write(`run ${run} of ${runs}: ${alive} of ${sessions.length} survived\n`);
}

/** Ends what runs, and cleans up, before a signal ends this process. */
async function withSignals(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  let caught: NodeJS.Signals | undefined;
  const abort = (signal: NodeJS.Signals) => {
    caught ??= signal;
    controller.abort(new Error(`ended by ${signal}`));
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, abort);
  try {
    await work(controller.signal);
  } catch (error) {
    if (caught === undefined) throw error;
    if (error !== controller.signal.reason) process.stderr.write(`agentrm: ${messageOf(error)}\n`);
    process.exitCode = 128 + constants.signals[caught];
  } finally {
    for (const signal of signals) process.off(signal, abort);
  }
}

function sessionsOf(command: Command, { trace, class: given, stagger }: Options): Session[] {
  if (trace.length > MOST_SESSIONS) command.error(`agentrm: --trace: more than ${MOST_SESSIONS}`);
  if (given !== undefined && given.length !== trace.length) {
    command.error(`agentrm: --class: ${given.length} for ${trace.length} traces`);
  }
  if ((trace.length - 1) * stagger > MAX_DURATION_MS) {
    command.error(
      `agentrm: --stagger: the last session would start after ${formatMs(trace.length * stagger)}`,
    );
  }
  const classes = given ?? defaultClasses(trace.length);
  // A file that is given twice is one trace: alone it is measured once.
  const traces = new Map<string, Trace>();
  try {
    for (const file of trace) if (!traces.has(file)) traces.set(file, readTrace(file));
  } catch (error) {
    if (!(error instanceof TraceError)) throw error;
    command.error(`agentrm: ${plain(error.message)}`);
  }
  return trace.map((name, index) => ({
    name,
    trace: traces.get(name) ?? [],
    class: classes[index] ?? 'background',
    delayMs: index * stagger,
  }));
}

function callClass(text: string): CallClass {
  const found = CALL_CLASSES.find((name) => name === text);
  if (found === undefined) throw new InvalidArgumentError(`It must be one of ${CALL_CLASSES.join(', ')}.`);
  return found;
}

function size(text: string): number {
  const parsed = parseSize(text);
  if (!parsed.ok) throw new InvalidArgumentError(`It is ${parsed.reason}.`);
  if (parsed.value === Number.POSITIVE_INFINITY) throw new InvalidArgumentError('It must be a size.');
  return parsed.value;
}

function duration(text: string): number {
  if (/^0+$/.test(text)) return 0;
  const parsed = parseDuration(text);
  if (!parsed.ok) throw new InvalidArgumentError(`It is ${parsed.reason}.`);
  return parsed.value;
}

function speed(text: string): number {
  const factor = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || factor < 0.001 || factor > 1000) {
    throw new InvalidArgumentError('It must be a number from 0.001 to 1000.');
  }
  return factor;
}

function runs(text: string): number {
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > MOST_RUNS) {
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${MOST_RUNS}.`);
  }
  return count;
}
