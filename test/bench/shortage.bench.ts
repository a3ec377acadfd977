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
/** No freeze is shorter than 100 ms; a gap that is longer than this is one, or the kernel's throttle. */
const STILL_MS = 60;

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
      const [below = 0, last = 0] = stdout.split(' ').map((ns) => Number(BigInt(ns.trim()) / 1000n) / 1000);
      const frozen = await daemon.event((event) => event.kind === 'freeze' && event.session === session);
      growthMs.push(last - below);
      freezeMs.push(Date.parse(frozen.time) - below);
    }
    holder.release();
    await holder.ran;
    return { mode, growthMs: summary(growthMs), freezeMs: summary(freezeMs) };
  } finally {
    await daemon.close();
  }
}
