// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import type { Advice, PeakQuantile } from '../control/types.ts';
import { parseIntent } from '../toolcall/intent.ts';
import { formatBytes } from '../units.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { type Cell, type Column, plain, print, safeJson, table } from './output.ts';

const columns: readonly Column[] = [
  { title: 'REPOSITORY' },
  { title: 'COMMAND' },
  { title: 'RUNS', align: 'right' },
  { title: 'CUT SHORT', align: 'right' },
  { title: 'P50', align: 'right' },
  { title: 'P95', align: 'right' },
  { title: 'MAX', align: 'right' },
  { title: 'ASK FOR' },
];

export function define(command: Command): void {
  command
    .addHelpText(
      'after',
      `
From the peaks of the newest runs of each command in each repository, once there are enough (learning.leastRuns).
A run that was killed or timed out was cut short: it counts as one that needs more than it had (>). A rule is for a
command in every repository; where they differ the largest is shown.`,
    )
    .action(async () => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const advice: Advice[] = [];
      for await (const { text, value } of clientOf(options).lines<Advice>('/v1/advice')) {
        if (options.json) await print(safeJson(text));
        else advice.push(value);
      }
      if (!options.json) for (const line of text(advice)) await print(line);
    });
}

function text(advice: readonly Advice[]): string[] {
  if (advice.length === 0) return ['Nothing to advise yet: no command has been run often enough.'];
  const sorted = advice.toSorted((a, b) => b.p95.bytes - a.p95.bytes);
  const owners = new Set(advice.map(({ uid }) => uid));
  const several = owners.size > 1;
  const rows = sorted.map((each) => [...(several ? [{ text: String(each.uid) }] : []), ...rowOf(each)]);
  return [
    ...table(several ? [{ title: 'UID', align: 'right' }, ...columns] : columns, rows),
    '',
    'For agentrmd.yaml:',
    'rules:',
    ...rules(sorted),
  ];
}

function rowOf({ repository, command, runs, cutShort, p50, p95, max, intent }: Advice): Cell[] {
  const cells = [
    repository ?? '-',
    command,
    String(runs),
    String(cutShort),
    ...[p50, p95, max].map(shown),
    intent,
  ];
  return cells.map((cell) => ({ text: plain(cell) }));
}

function shown({ bytes, atLeast }: PeakQuantile): string {
  return `${atLeast ? '>' : ''}${formatBytes(bytes)}`;
}

/** One for each command, the longest first: the first that matches counts, and `npm test` matches `npm test --`. */
function rules(advice: readonly Advice[]): string[] {
  const largest = new Map<string, Advice>();
  for (const each of advice) {
    const before = largest.get(each.command);
    if (before === undefined || highBytes(each) > highBytes(before)) largest.set(each.command, each);
  }
  return [...largest.values()]
    .toSorted((a, b) => b.command.length - a.command.length)
    .flatMap(({ rule }) => [
      // JSON's strings are YAML's: a pattern may begin with `*`.
      `  - command: ${safeJson(JSON.stringify(rule.command))}`,
      `    intent: ${plain(rule.intent)}`,
    ]);
}

function highBytes({ intent }: Advice): number {
  const parsed = parseIntent(intent);
  return parsed.ok ? (parsed.intent.memoryHighBytes ?? 0) : 0;
}
