// SPDX-License-Identifier: Apache-2.0
import type { RunRecord, SessionRecord } from '../replay/experiment.ts';
import { medianInterval, quantile } from '../replay/statistics.ts';
import { formatBytes } from '../units.ts';
import { type Cell, type Column, plain, print, table } from './output.ts';

const columns: readonly Column[] = [
  { title: 'SESSION' },
  { title: 'CLASS' },
  { title: 'SURVIVED', align: 'right' },
  { title: 'TOTAL, s', align: 'right' },
  { title: 'OVER ALONE', align: 'right' },
  { title: 'ALLOC P50, ms', align: 'right' },
  { title: 'ALLOC P95, ms', align: 'right' },
  { title: 'FROZEN, s', align: 'right' },
  { title: 'THROTTLED, s', align: 'right' },
];

/** Medians over the runs, with 95 % intervals in brackets where there are runs enough for one. */
export async function printReplay(records: readonly RunRecord[]): Promise<void> {
  const [first] = records;
  if (first === undefined) return;
  const often = `${records.length} ${records.length === 1 ? 'run' : 'runs'}`;
  await print(`arm ${first.arm}, limit ${formatBytes(first.limitBytes)}, speed ${first.speed}, ${often}`);
  const rows = first.sessions.map((_, index) =>
    rowOf(records.flatMap(({ sessions }) => sessions[index] ?? [])),
  );
  for (const line of table(columns, rows)) await print(line);
}

function rowOf(runs: readonly SessionRecord[]): Cell[] {
  const alive = runs.filter(({ survived }) => survived);
  const seconds = (pick: (session: SessionRecord) => number) =>
    medians(
      alive.map((session) => pick(session) / 1000),
      2,
    );
  return [
    { text: plain(runs[0]?.trace ?? '') },
    { text: runs[0]?.class ?? '' },
    { text: `${alive.length} of ${runs.length}` },
    { text: seconds(({ totalMs }) => totalMs ?? NaN) },
    {
      text: medians(
        alive.map(({ totalMs, aloneMs }) => (totalMs ?? NaN) / (aloneMs ?? NaN)),
        3,
      ),
    },
    {
      text: medians(
        alive.flatMap(({ allocP50Ms }) => allocP50Ms ?? []),
        1,
      ),
    },
    {
      text: medians(
        alive.flatMap(({ allocP95Ms }) => allocP95Ms ?? []),
        1,
      ),
    },
    { text: seconds(({ frozenMs }) => frozenMs) },
    { text: seconds(({ throttledMs }) => throttledMs) },
  ];
}

function medians(values: readonly number[], digits: number): string {
  const median = quantile(values, 0.5);
  if (median === null) return '-';
  const interval = medianInterval(values);
  const brackets = interval === null ? '' : ` [${interval.map((end) => end.toFixed(digits)).join(', ')}]`;
  return `${median.toFixed(digits)}${brackets}`;
}
