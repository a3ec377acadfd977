// SPDX-License-Identifier: Apache-2.0
// How soon a growing background call stands still when the pool is short: from the last look at which the pool was not
// over the call's line, as the program itself sees it, to its last new page; and to the daemon's own freeze. With the
// kernel that stops it at the charge, and with the daemon's looks alone.
import { agentrmBash, TestDaemon, until } from '../lib/daemon.ts';
import { Holder } from '../lib/holder.ts';
import { count, record } from './record.ts';
import { type Summary, summary } from './stats.ts';
import { loadPath, MiB, output } from './tools.ts';

const rounds = count('ROUNDS', 100);

const BUDGET_MIB = 512;
/** An interactive call has this much and holds still. */
const HELD_MIB = 300;
/** The first background call stops three steps of 1 % below the budget (daemon/policy/pool-lines.ts). */
const LINE_MIB = BUDGET_MIB * 0.97;
/** No freeze is shorter than 100 ms. */
const STILL_MS = 90;

/** Of as many rounds as its summaries have. */
export interface ShortageResult {
  readonly mode: 'bpf' | 'user';
  /** To the last page. */
  readonly growthMs: Summary;
  /** To the daemon's event; it has whole milliseconds. */
  readonly freezeMs: Summary;
}
export type ShortageResults = readonly ShortageResult[];

const results: ShortageResult[] = [];
for (const mode of ['bpf', 'user'] as const) {
  results.push(await measure(mode));
  console.dir(results.at(-1), { depth: null });
  record('shortage', { rounds }, results satisfies ShortageResults);
}

/** A line of agentrm-load, in ms since the epoch. */
function gapOf(line: string) {
  const [enoughMs = 0, startMs = 0, endMs = 0] = line
    .split(' ')
    .map((ns) => Number(BigInt(ns) / 1000n) / 1000);
  return { enoughMs, startMs, endMs };
}

async function measure(mode: ShortageResult['mode']): Promise<ShortageResult> {
  const config = `
pool: { budget: ${BUDGET_MIB}M }
admission: { wait: 10ms }
enforcement: { mode: ${mode} }
`;
  const daemon = await new TestDaemon({ config }).start();
  try {
    const { backend } = await daemon.status();
    if (backend.mode !== mode) throw new Error(`no mode ${mode} here: ${backend.reason}`);
    const holder = new Holder(daemon, 'holder', 'class=interactive memory.high=max', HELD_MIB);
    const holds = async () => ((await daemon.liveCalls())[0]?.memory.usedBytes ?? 0) >= HELD_MIB * MiB;
    await until(holds, 'the first call holds its memory');
    const growthMs: number[] = [];
    const freezeMs: number[] = [];
    const load = `${loadPath} --bytes ${BUDGET_MIB}M stall ${Math.floor(LINE_MIB * MiB)} ${STILL_MS}`;
    for (let round = 0; round < rounds; round += 1) {
      const session = `round-${round}`;
      const { stdout } = await output([agentrmBash, '-c', `${load} ${daemon.cgroup}/memory.current`], {
        env: daemon.env({ AGENTRM_SESSION: session, AGENTRM_INTENT: 'class=background memory.high=max' }),
      });
      const freeze = await daemon.event((event) => event.kind === 'freeze' && event.session === session);
      const frozenAtMs = Date.parse(freeze.time);
      const gaps = stdout.trim().split('\n').map(gapOf);
      // It also stands still for a moment where others need the CPU. The event's time is cut to whole milliseconds.
      const gap = gaps.find(({ startMs, endMs }) => startMs < frozenAtMs + 1 && frozenAtMs < endMs);
      if (gap === undefined) throw new Error(`frozen at ${freeze.time}, but went on: ${stdout}`);
      growthMs.push(gap.startMs - gap.enoughMs);
      freezeMs.push(frozenAtMs - gap.enoughMs);
    }
    holder.release();
    await holder.ran;
    return { mode, growthMs: summary(growthMs), freezeMs: summary(freezeMs) };
  } finally {
    await daemon.close();
  }
}
