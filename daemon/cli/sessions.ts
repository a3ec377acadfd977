// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import type { SessionRecord } from '../control/types.ts';
import { formatBytes } from '../units.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { age } from './format.ts';
import { type Column, jsonLine, plain, print, table } from './output.ts';

const columns: readonly Column[] = [
  { title: 'SESSION' },
  { title: 'UID', align: 'right' },
  { title: 'AGENT' },
  { title: 'LIVE', align: 'right' },
  { title: 'ENDED', align: 'right' },
  { title: 'MEMORY', align: 'right' },
  { title: 'AGE', align: 'right' },
  { title: 'ACTIVE', align: 'right' },
];

export function define(command: Command): void {
  command.action(async () => {
    const options = command.optsWithGlobals<GlobalOptions>();
    const { sessions } = await clientOf(options).get<{ sessions: SessionRecord[] }>('/v1/sessions');
    if (options.json) {
      for (const session of sessions) await print(jsonLine(session));
      return;
    }
    const now = Date.now();
    const rows = sessions.map((session) => [
      { text: plain(session.id) },
      { text: String(session.uid) },
      { text: plain(session.agent ?? '-') },
      { text: String(session.liveCalls) },
      { text: String(session.finishedCalls) },
      { text: formatBytes(session.usedBytes) },
      { text: age(session.startedAt, now) },
      { text: age(session.lastActiveAt, now) },
    ]);
    for (const line of table(columns, rows)) await print(line);
  });
}
