// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import type { SessionRecord, SessionState } from '../control/types.ts';
import { formatBytes } from '../units.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { age, count } from './format.ts';
import { type Cell, type Column, jsonLine, plain, print, type Style, table } from './output.ts';

export const sessionColumns: readonly Column[] = [
  { title: 'SESSION' },
  { title: 'UID', align: 'right' },
  { title: 'AGENT' },
  { title: 'STATE' },
  { title: 'CLASS' },
  { title: 'LIVE', align: 'right' },
  { title: 'FROZEN', align: 'right' },
  { title: 'ENDED', align: 'right' },
  { title: 'MEMORY', align: 'right' },
  { title: 'LANES', align: 'right' },
  { title: 'QUEUED', align: 'right' },
  { title: 'TURNS', align: 'right' },
  { title: 'TOKENS', align: 'right' },
  { title: 'AGE', align: 'right' },
  { title: 'ACTIVE', align: 'right' },
];

const styles: Readonly<Record<SessionState, Style | undefined>> = {
  created: 'yellow',
  ready: 'yellow',
  running: 'green',
  waiting: undefined,
  terminated: 'dim',
};

export function define(command: Command): void {
  command
    .addHelpText(
      'after',
      '\nLIVE, FROZEN and ENDED are tool calls; LANES, QUEUED and TURNS (that ended) are turns of the proxy.',
    )
    .action(async () => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const { sessions } = await clientOf(options).get<{ sessions: SessionRecord[] }>('/v1/sessions');
      if (options.json) {
        for (const session of sessions) await print(jsonLine(session));
        return;
      }
      const now = Date.now();
      const rows = sessions.map((session) => sessionRow(session, now));
      for (const line of table(sessionColumns, rows)) await print(line);
    });
}

export function sessionRow(session: SessionRecord, nowMs: number): Cell[] {
  const { state } = session;
  return [
    { text: plain(session.id) },
    { text: session.uid === null ? '-' : String(session.uid) },
    { text: plain(session.agent ?? '-') },
    { text: state, style: styles[state] },
    { text: session.class ?? '-' },
    { text: String(session.liveCalls) },
    { text: String(session.frozenCalls), style: session.frozenCalls > 0 ? 'cyan' : undefined },
    { text: String(session.finishedCalls) },
    { text: formatBytes(session.usedBytes) },
    { text: String(session.lanes) },
    { text: String(session.queuedTurns) },
    { text: String(session.finishedTurns) },
    { text: count(session.usedTokens) },
    { text: age(session.startedAt, nowMs) },
    { text: age(session.lastActiveAt, nowMs) },
  ];
}
