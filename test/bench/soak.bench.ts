// SPDX-License-Identifier: Apache-2.0
// What is left of many calls: first of calls whose wrapper, shell, child or agent is killed, which leave processes
// behind and nest, under a daemon that is restarted and killed; then whether the daemon grows, or gets slower, with
// many calls at once and for minutes. BENCH_EXPERIMENTS=kills or steady runs one of the two.
import { TestDaemon } from '../lib/daemon.ts';
import { chosen, count, earlier, record } from './record.ts';
import { type KillsResult, soak } from './soak/kills.ts';
import { type SteadyResult, steady } from './soak/steady.ts';

const calls = count('CALLS', 10_000);
const parallel = count('PARALLEL', 6);
const seed = count('SEED', 1);
const daemonEvery = count('DAEMON_EVERY', 100);
const atOnce = count('AT_ONCE', 500);
const minutes = count('MINUTES', 5);
/** More callers than CPUs: while one forks, another waits for the daemon. */
const callers = count('CALLERS', 4);

export interface SoakResults {
  readonly kills: KillsResult | null;
  readonly steady: SteadyResult | null;
}

let results: SoakResults = earlier<SoakResults>('soak') ?? { kills: null, steady: null };
// Every record is looked for at the end.
const config = `store: { keepCalls: ${2 * calls} }\n`;
for (const experiment of chosen('EXPERIMENTS', ['kills', 'steady'] as const)) {
  const daemon = await new TestDaemon({ config: experiment === 'kills' ? config : '' }).start();
  try {
    if (experiment === 'kills') {
      results = { ...results, kills: await soak(daemon, { calls, parallel, seed, daemonEvery }) };
    } else {
      results = { ...results, steady: await steady(daemon, { atOnce, minutes, parallel: callers }) };
    }
    console.dir(results[experiment], { depth: null });
    record('soak', { calls, parallel, seed, daemonEvery, atOnce, minutes, callers }, results);
  } finally {
    await daemon.close();
  }
}
