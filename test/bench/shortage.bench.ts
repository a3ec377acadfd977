// SPDX-License-Identifier: Apache-2.0
// How soon a growing background call stands still when the pool is short: from the last look at which the pool was not
// over the call's line, as the program itself sees it, to its last new page; and to the daemon's own freeze. With the
// kernel that stops it at the charge, and with the daemon's looks alone.
import { agentrmBash, loadProgram, TestDaemon, until } from '../lib/daemon.ts';
import { Holder } from '../lib/holder.ts';
import { count, record } from './record.ts';
import { type Summary, summary } from './stats.ts';
import { MiB, output } from './tools.ts';

const rounds = count('ROUNDS', 100);

const BUDGET_MIB = 512;
/** An interactive call has this much and holds still. */
const HELD_MIB = 300;
/** The first background call stops three steps of 1 % below the budget (daemon/policy/pool-lines.ts). */
const LINE_MIB = BUDGET_MIB * 0.97;
/** No freeze is shorter than 100 ms. */
const STILL_MS = 90;

export interface ShortageResult {
  readonly mode: 'bpf' | 'user';
  /** To the last page, in every round. */
  readonly growthMs: Summary;
  /** To the daemon's event, which has whole milliseconds, where there was one before it went on. */
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
    const load = `${loadProgram} --bytes ${BUDGET_MIB}M stall ${Math.floor(LINE_MIB * MiB)} ${STILL_MS}`;
    for (let round = 0; round < rounds; round += 1) {
      const session = `round-${round}`;
      const { stdout } = await output([agentrmBash, '-c', `${load} ${daemon.cgroup}/memory.current`], {
        env: daemon.env({ AGENTRM_SESSION: session, AGENTRM_INTENT: 'class=background memory.high=max' }),
      });
      // The last is the one for which it ended.
      const { enoughMs, startMs, endMs } = gapOf(stdout.trim().split('\n').at(-1) ?? '');
      growthMs.push(startMs - enoughMs);
      // Who stands still in the kernel, which looks for something to reclaim, is not frozen for that.
      const frozen = (await daemon.events())
        .filter((event) => event.kind === 'freeze' && event.session === session)
        .map(({ time }) => Date.parse(time))
        .find((atMs) => atMs >= enoughMs && atMs < endMs);
      if (frozen !== undefined) freezeMs.push(frozen - enoughMs);
    }
    holder.release();
    await holder.ran;
    return { mode, growthMs: summary(growthMs), freezeMs: summary(freezeMs) };
  } finally {
    await daemon.close();
  }
}
