// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import type { CallRecord, Event } from '../control/types.ts';
import { formatBytes, formatMs } from '../units.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { localTime } from './format.ts';
import { type Column, plain, print, type Style, safeJson, table } from './output.ts';

interface Options extends GlobalOptions {
  readonly follow?: true;
}

const columns: readonly Column[] = [
  { title: 'TIME', width: 23 },
  { title: 'EVENT', width: 13 },
  { title: 'CALL', width: 13 },
  { title: 'DETAIL' },
];

export function define(command: Command): void {
  command.option('-f, --follow', 'go on with events as they come').action(async () => {
    const options = command.optsWithGlobals<Options>();
    const follow = options.follow === true;
    const path = `/v1/events${follow ? '?follow=1' : ''}`;
    for await (const { text, value } of clientOf(options).lines<Event>(path, { follow })) {
      await print(options.json ? safeJson(text) : lineOf(value));
    }
  });
}

const styles: Readonly<Record<string, Style>> = {
  freeze: 'cyan',
  lend: 'green',
  kill: 'red',
  oom: 'red',
  degraded: 'yellow',
  lost: 'yellow',
};

function lineOf({ seq: _, time, kind, session, call, ...detail }: Event): string {
  const cells = [
    { text: localTime(time) },
    { text: plain(kind), style: styles[kind] },
    { text: plain(String(call ?? session ?? '-')) },
    { text: plain(describe(detail)) },
  ];
  return table(columns, [cells], { titles: false, cut: false }).join('');
}

/** `usage 130 MiB, reason line`: the fields of an event with their units. */
function describe(detail: Readonly<Record<string, unknown>>): string {
  const known = Object.entries(detail).filter(([, value]) => value !== null);
  const parts = known.map(([name, value]) => {
    if (name === 'record') return describeRecord(value as CallRecord);
    if (typeof value === 'number' && name.endsWith('Bytes'))
      return `${name.slice(0, -5)} ${formatBytes(value)}`;
    if (typeof value === 'number' && name.endsWith('Ms')) return `${name.slice(0, -2)} ${formatMs(value)}`;
    return `${name} ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`;
  });
  return parts.join(', ');
}

function describeRecord({ outcome, exitCode, signal, durationMs, memory, command }: CallRecord): string {
  const end = signal ?? (exitCode === null ? 'unknown' : `exit ${exitCode}`);
  const parts = [
    outcome,
    end,
    `took ${formatMs(durationMs)}`,
    `peak ${formatBytes(memory.peakBytes)}`,
    command,
  ];
  return parts.filter(Boolean).join(', ');
}
