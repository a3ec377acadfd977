// SPDX-License-Identifier: Apache-2.0
import {
  callStates,
  type LiveCall,
  type Monitor,
  type ProxyMonitor,
  type ProxyUpstream,
} from '../control/types.ts';
import { formatBytes, formatMs } from '../units.ts';
import { age, count } from './format.ts';
import { type Cell, type Column, plain, type Style, table } from './output.ts';
import { sessionColumns, sessionRow } from './sessions.ts';

/** A moment of both halves as one screen: the host, what turns wait for, sessions, tool calls. */
export function screenOf(monitor: Monitor): string[] {
  const nowMs = Date.parse(monitor.time);
  const blocks = [
    [
      ...headOf(monitor),
      monitor.proxy === null ? 'proxy     none, or it does not answer' : turnsOf(monitor.proxy),
    ],
    ...(monitor.proxy === null ? [] : [upstreamsOf(monitor.proxy.upstreams)]),
    sessionsOf(monitor, nowMs),
    callsOf(monitor.liveCalls, nowMs),
  ];
  return blocks
    .filter((block) => block.length > 0)
    .flatMap((block, index) => (index === 0 ? block : ['', ...block]));
}

function headOf({ time, host, pool, calls }: Monitor): string[] {
  const { cpu, memory, io } = host.pressure;
  const percent = (value: number | null) => (value === null ? 'off' : `${value.toFixed(1)} %`);
  const states = callStates.filter((state) => calls[state] > 0).map((state) => `${calls[state]} ${state}`);
  return [
    `host      ${formatBytes(host.availableBytes)} of ${formatBytes(host.totalBytes)} available; ` +
      `pressure: memory ${percent(memory)}, cpu ${percent(cpu)}, io ${percent(io)}; ${time.slice(11, 19)} UTC`,
    `pool      ${formatBytes(pool.usedBytes)} of ${formatBytes(pool.budgetBytes)} used, ` +
      `${formatBytes(pool.roomBytes)} can be lent`,
    `calls     ${states.join(', ') || 'none'}`,
  ];
}

function turnsOf({ running, queued, delayed, held, gated, pressure, agents }: ProxyMonitor): string {
  const parts = [`${running} running`, `${queued} queued`];
  if (delayed > 0) parts.push(`${delayed} to be tried again`);
  if (held > 0) parts.push(`${held} held for the host's memory`);
  if (gated > 0) parts.push(`${gated} of agents that may not run yet`);
  const slowed = pressure.poolShort ? '; the pool is short' : '';
  const limit = agents.limit === null ? '' : `; agents: ${agents.running} of ${agents.limit} run`;
  return `turns     ${parts.join(', ')}${limit}${slowed}`;
}

const upstreamColumns: readonly Column[] = [
  { title: 'UPSTREAM' },
  { title: 'CREDENTIAL' },
  { title: 'LANES', align: 'right' },
  { title: 'INTERACTIVE', align: 'right' },
  { title: 'SUBAGENT', align: 'right' },
  { title: 'BACKGROUND', align: 'right' },
  { title: 'OLDEST', align: 'right' },
  { title: 'REQUESTS/MIN', align: 'right' },
  { title: 'INPUT/MIN', align: 'right' },
  { title: 'OUTPUT/MIN', align: 'right' },
  { title: 'STATE' },
];

/** Levels as running+queued, buckets as what is left of how much. */
function upstreamsOf(upstreams: readonly ProxyUpstream[]): string[] {
  if (upstreams.length === 0) return [];
  const rows = upstreams.map(({ provider, modelClass, credential, lanes, levels, buckets, ...rest }) => {
    const oldestMs = Math.max(...levels.map(({ oldestWaitMs }) => oldestWaitMs));
    const left = (resource: string): string => {
      const bucket = buckets.find((each) => each.resource === resource);
      if (bucket?.limitPerMin == null || bucket.available === null) return '-';
      return `${count(Math.floor(bucket.available))}/${count(bucket.limitPerMin)}`;
    };
    const paused = rest.pausedMs === null ? '' : `paused for ${formatMs(rest.pausedMs)}`;
    const quota = rest.breaker === 'closed' ? '' : `quota ${rest.breaker}`;
    const windows = (rest.subscription?.windows ?? [])
      .filter(({ used }) => used !== null)
      .map(({ window, used }) => `${window} ${Math.round((used ?? 0) * 100)} %`);
    return [
      { text: plain(`${provider} ${modelClass}`) },
      { text: plain(credential.slice(0, 8)) },
      { text: `${lanes.held}/${lanes.limit}${lanes.fixed ? ' fixed' : ''}` },
      ...levels.map(({ running, queued }) => ({ text: `${running}+${queued}` })),
      { text: oldestMs > 0 ? formatMs(oldestMs) : '-' },
      ...['requests', 'inputTokens', 'outputTokens'].map((resource) => ({ text: left(resource) })),
      { text: [paused, quota, ...windows].filter(Boolean).join(', ') || 'ok' },
    ] satisfies Cell[];
  });
  return table(upstreamColumns, rows);
}

function sessionsOf({ sessions, proxy }: Monitor, nowMs: number): string[] {
  if (sessions.length === 0) return [];
  const shown = sessions.filter(({ state }) => state !== 'terminated');
  // What is under way first, then who was active last.
  const order = ['running', 'ready', 'created', 'waiting', 'terminated'];
  shown.sort(
    (a, b) =>
      order.indexOf(a.state) - order.indexOf(b.state) ||
      Date.parse(b.lastActiveAt) - Date.parse(a.lastActiveAt),
  );
  const hidden = sessions.length - shown.length + (proxy?.omitted ?? 0);
  const lines = table(
    [...sessionColumns, { title: 'RUNS', align: 'right' }],
    shown.map((session) => [...sessionRow(session, nowMs), { text: String(session.openRuns) }]),
  );
  return hidden > 0
    ? [...lines, `${hidden} sessions that are over or were active long ago are not shown`]
    : lines;
}

const callColumns: readonly Column[] = [
  { title: 'CALL' },
  { title: 'SESSION' },
  { title: 'STATE' },
  { title: 'AGE', align: 'right' },
  { title: 'USED', align: 'right' },
  { title: 'PEAK', align: 'right' },
  { title: 'HIGH', align: 'right' },
  { title: 'MAX', align: 'right' },
  { title: 'THROTTLED', align: 'right' },
  { title: 'FROZEN', align: 'right' },
  { title: 'COMMAND' },
];

const callStyles: Readonly<Record<string, Style>> = { throttled: 'yellow', frozen: 'cyan' };

function callsOf(calls: readonly LiveCall[], nowMs: number): string[] {
  if (calls.length === 0) return [];
  const limit = (bytes: number | null) => (bytes === null ? 'max' : formatBytes(bytes));
  const time = (ms: number) => (ms > 0 ? formatMs(ms) : '-');
  const largest = [...calls].sort((a, b) => b.memory.usedBytes - a.memory.usedBytes);
  const rows = largest.map(({ id, session, state, startedAt, memory, command }) => [
    { text: plain(id) },
    { text: plain(session.slice(0, 12)) },
    { text: plain(state), style: callStyles[state] },
    { text: age(startedAt, nowMs) },
    { text: formatBytes(memory.usedBytes) },
    { text: formatBytes(memory.peakBytes) },
    { text: limit(memory.highBytes) },
    { text: limit(memory.maxBytes) },
    { text: time(memory.throttledMs) },
    { text: time(memory.frozenMs) },
    { text: plain(command) },
  ]);
  return table(callColumns, rows);
}
