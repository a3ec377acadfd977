// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { callStates, outcomes, type Status } from '../control/types.ts';
import { formatBytes, formatMs } from '../units.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { exit } from './exit.ts';
import { type Cell, jsonLine, plain, print, table } from './output.ts';

export function define(command: Command): void {
  command.action(async () => {
    const options = command.optsWithGlobals<GlobalOptions>();
    const status = await clientOf(options).get<Status>('/v1/status');
    if (options.json) await print(jsonLine(status));
    else for (const line of describe(status)) await print(line);
    if (status.backend.mode !== 'bpf' || status.backend.degraded.length > 0) process.exitCode = exit.degraded;
  });
}

function describe(status: Status): string[] {
  const { backend, pool, counters } = status;
  const modes = {
    bpf: `in the kernel, by BPF (${backend.hooks.join(', ')})`,
    user: 'by a poller in user space',
    none: 'none: every command runs unmanaged',
  };
  const calls = listOf(callStates.map((state) => [status.calls[state], state]));
  const ended = listOf(outcomes.map((outcome) => [counters[outcome], outcome]));
  const done = listOf([
    [counters.freezes, 'freezes'],
    [counters.lends, 'loans'],
    [counters.kills, 'kills'],
    [counters.unmanaged, 'commands unmanaged'],
  ]);
  const rows: [string, string, Cell['style']?][] = [
    ['daemon', `${status.version}, pid ${status.pid}, up ${formatMs(status.uptimeMs)}`],
    ['enforcement', modes[backend.mode], backend.mode === 'bpf' ? 'green' : 'yellow'],
    ['kernel', status.kernel],
    ['cgroup', status.cgroup],
    ['socket', status.socket],
    [
      'pool',
      `${formatBytes(pool.usedBytes)} of ${formatBytes(pool.budgetBytes)} used, ` +
        `${formatBytes(pool.roomBytes)} can be lent, ${formatBytes(pool.reserveBytes)} kept for the host`,
    ],
    ['sessions', String(status.sessions)],
    ['calls', calls || 'none'],
    ['since start', [ended && `calls ended: ${ended}`, done].filter(Boolean).join('; ') || 'nothing yet'],
  ];
  if (backend.reason !== null) rows.push(['because', backend.reason, 'yellow']);
  for (const reason of backend.degraded)
    if (reason !== backend.reason) rows.push(['degraded', reason, 'yellow']);
  const cells = rows.map(([name, text, style]) => [{ text: name }, { text: plain(text), style }]);
  return table([{ title: 'name' }, { title: 'value' }], cells, { titles: false, cut: false });
}

/** `3 running, 1 frozen`: what is not 0. */
function listOf(counts: readonly (readonly [number | undefined, string])[]): string {
  return counts.flatMap(([count, name]) => (count ? [`${count} ${name}`] : [])).join(', ');
}
