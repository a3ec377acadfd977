// SPDX-License-Identifier: Apache-2.0
// What is left of calls whose wrapper, shell, child or agent is killed, which leave processes behind and nest, under a
// daemon that is restarted and killed: BENCH_PARTS parts of BENCH_CALLS calls, each with a daemon and a seed of its own
// (from BENCH_SEED on), and kept when it has ended, for all of them take an emulated machine an hour. A part replaces what
// was kept of its seed.
import { TestDaemon } from '../lib/daemon.ts';
import { count, earlier, record } from './record.ts';
import { type KillsResult, soak } from './soak/kills.ts';

export interface SoakPart extends KillsResult {
  readonly seed: number;
  /** When it ended, ISO 8601. */
  readonly date: string;
}

const calls = count('CALLS', 2500);
const parts = count('PARTS', 4);
const first = count('SEED', 1);
const parallel = count('PARALLEL', 6);
const daemonEvery = count('DAEMON_EVERY', 100);

for (let seed = first; seed < first + parts; seed += 1) {
  // Every record is looked for at the end.
  const daemon = await new TestDaemon({ config: `store: { keepCalls: ${2 * calls} }\n` }).start();
  try {
    const kills = await soak(daemon, { calls, parallel, seed, daemonEvery });
    console.dir(kills, { depth: null });
    const others = (earlier<readonly SoakPart[]>('soak') ?? []).filter((part) => part.seed !== seed);
    const part: SoakPart = { seed, date: new Date().toISOString(), ...kills };
    const all = [...others, part].sort((a, b) => a.seed - b.seed);
    record('soak', { calls, parallel, daemonEvery }, all);
    if (!isClean(kills)) process.exitCode = 1;
  } finally {
    await daemon.close();
  }
}

function isClean({ stuck, cgroups, processes, mapEntries, unrecorded, recordedTwice }: KillsResult): boolean {
  const left = [stuck, cgroups, processes, ...Object.values(mapEntries), unrecorded, recordedTwice];
  return left.every((number) => number === 0);
}
