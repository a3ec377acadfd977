// SPDX-License-Identifier: Apache-2.0
// How long a call that the kernel has stopped stands still when there is memory to lend: from the stop to the first
// page that it touches afterwards, with everything in between, as the program itself sees it.
import { agentrmBash, loadProgram, TestDaemon } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { type Summary, summary } from './stats.ts';
import { output, requireKernel } from './tools.ts';

const runs = count('RUNS', 5);
/** Loans of 4 MiB from 16 MiB on: some fifty stops in a run. */
const bytes = '224M';
const config = `
pool: { reserve: 256M }
lend: { stepPercent: 1, stepMin: 4M, roomShare: 1000, least: 1M }
enforcement: { freezeLinePercent: 2 }
`;
/** Shorter gaps are the machine's own (faults, the clock's tick, other processes). */
const gapMs = 1;

export interface LendResults {
  readonly stopToPageMs: Summary;
}

const daemon = await new TestDaemon({ config }).start();
try {
  await requireKernel(daemon);
  const gaps: number[] = [];
  let stops = 0;
  for (let run = 0; run < runs; run += 1) {
    const { stdout } = await output([agentrmBash, '-c', `${loadProgram} --bytes ${bytes} gaps ${gapMs}`], {
      env: daemon.env({ AGENTRM_INTENT: 'memory.high=16M' }),
    });
    const freezes = (await freezesSoFar()) - stops;
    const longest = stdout
      .trim()
      .split('\n')
      .map((line) => line.split(' ').map(Number) as [start: number, end: number])
      .map(([start, end]) => (end - start) / 1e6)
      .sort((a, b) => b - a);
    // Every stop is a gap, and next to a stop all other gaps are short.
    gaps.push(...longest.slice(0, freezes));
    stops += freezes;
    record('lend', { runs: run + 1, stops }, { stopToPageMs: summary(gaps) } satisfies LendResults);
    console.log(`run ${run}: ${freezes} freezes, ${longest.length} gaps`);
  }
  console.log(summary(gaps));
} finally {
  await daemon.close();
}

async function freezesSoFar(): Promise<number> {
  return (await daemon.status()).counters.freezes ?? 0;
}
