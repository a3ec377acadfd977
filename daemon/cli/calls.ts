// SPDX-License-Identifier: Apache-2.0
import { type Command, InvalidArgumentError } from 'commander';
import type { ControlClient } from '../control/client.ts';
import { type CallRecord, type Event, type LiveCall, MOST_CALLS } from '../control/types.ts';
import { formatBytes, formatMs } from '../units.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { exit } from './exit.ts';
import { age } from './format.ts';
import { type Cell, type Column, jsonLine, plain, print, type Style, safeJson, table } from './output.ts';

/** As many as fit on a screen. With --json a program reads, which wants all that are kept. */
const SHOWN = 20;

interface Options extends GlobalOptions {
  readonly session?: string;
  readonly limit?: number;
  readonly follow?: true;
}

/** Widths are for rows that come one by one; a whole table fits itself. */
const columns: readonly Column[] = [
  { title: 'CALL', width: 13 },
  { title: 'SESSION', width: 12 },
  { title: 'AGENT', width: 11 },
  { title: 'STATE', width: 9 },
  { title: 'EXIT', width: 7 },
  { title: 'AGE', align: 'right', width: 6 },
  { title: 'TOOK', align: 'right', width: 7 },
  { title: 'PEAK', align: 'right', width: 9 },
  { title: 'HIGH', align: 'right', width: 9 },
  { title: 'THROTTLED', align: 'right' },
  { title: 'FROZEN', align: 'right' },
  { title: 'COMMAND' },
];

export function define(command: Command): void {
  command
    .option('--session <id>', 'only those of one session')
    .option('--limit <n>', `only the newest n that ended (default: ${SHOWN}; all with --json)`, wholeNumber)
    .option('-f, --follow', 'go on with calls as they end')
    .addHelpText(
      'after',
      '\nWith --json one object a line for each call that ended; without, those that run too.',
    )
    .action(async () => {
      const options = command.optsWithGlobals<Options>();
      const client = clientOf(options);
      if (options.follow) await follow(client, options);
      else if (options.json) await printJson(client, options);
      else await printTable(client, options);
    });
}

async function printJson(client: ControlClient, options: Options): Promise<void> {
  for await (const { text } of client.lines<CallRecord>(pathOf(options, MOST_CALLS), { onIncomplete }))
    await print(safeJson(text));
}

async function printTable(client: ControlClient, options: Options): Promise<void> {
  const now = Date.now();
  const rows: Cell[][] = [];
  const path = `${pathOf(options, SHOWN)}&live=1`;
  for await (const { value } of client.lines<CallRecord | LiveCall>(path, { onIncomplete })) {
    rows.push(rowOf(value, now));
  }
  const fitted = columns.map(({ width: _, ...column }) => column);
  for (const line of table(fitted, rows)) await print(line);
}

/** First what has ended, then what ends; nothing between is lost, and nothing comes twice. */
async function follow(client: ControlClient, options: Options): Promise<void> {
  const show = async (record: CallRecord): Promise<void> => {
    if (options.json) await print(jsonLine(record));
    else for (const line of table(columns, [rowOf(record, Date.now())]).slice(1)) await print(line);
  };
  if (!options.json) for (const line of table(columns, [])) await print(line);
  let before = 0;
  for await (const { value } of client.lines<Event>('/v1/events')) before = value.seq;
  const seen = new Set<string>();
  for await (const { value } of client.lines<CallRecord>(pathOf(options, SHOWN), { onIncomplete })) {
    seen.add(value.id);
    await show(value);
  }
  for await (const { value } of client.lines<Event>('/v1/events?follow=1', { follow: true })) {
    if (value.kind === 'lost')
      process.stderr.write(`agentrm: ${value.count} events lost: too slow to follow\n`);
    if (value.kind !== 'call-end' || value.seq <= before || seen.has(String(value.call))) continue;
    if (options.session !== undefined && value.session !== options.session) continue;
    await show(value.record as CallRecord);
  }
}

/** What there is has been printed by then, or will be; "none" and "not known" must not look the same. */
function onIncomplete(reason: string): void {
  process.stderr.write(`agentrm: not all calls are listed: ${plain(reason)}\n`);
  process.exitCode = exit.failed;
}

function pathOf({ session, limit }: Options, standard: number): string {
  const query = new URLSearchParams({ limit: String(limit ?? standard) });
  if (session !== undefined) query.set('session', session);
  return `/v1/calls?${query}`;
}

const styles: Readonly<Record<string, Style>> = {
  ok: 'green',
  killed: 'red',
  oom: 'red',
  timeout: 'red',
  lost: 'red',
  throttled: 'yellow',
  frozen: 'cyan',
};

function rowOf(call: CallRecord | LiveCall, nowMs: number): Cell[] {
  const { memory } = call;
  const ended = 'outcome' in call;
  const state = ended ? call.outcome : call.state;
  const end = ended ? (call.signal ?? call.exitCode ?? '-') : '';
  return [
    call.id,
    // Agents name sessions by UUIDs, of which the beginning is enough to tell them apart.
    call.session.slice(0, 12),
    call.agent ?? '-',
    { text: plain(state), style: styles[state] },
    String(end),
    age(call.startedAt, nowMs),
    ended ? formatMs(call.durationMs) : '',
    formatBytes(memory.peakBytes),
    memory.highBytes === null ? 'max' : formatBytes(memory.highBytes),
    memory.throttledMs > 0 ? formatMs(memory.throttledMs) : '-',
    memory.frozenMs > 0 ? formatMs(memory.frozenMs) : '-',
    call.command,
  ].map((cell) => (typeof cell === 'string' ? { text: plain(cell) } : cell));
}

function wholeNumber(text: string): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number > MOST_CALLS) {
    throw new InvalidArgumentError(`It must be a whole number from 0 to ${MOST_CALLS}.`);
  }
  return number;
}
