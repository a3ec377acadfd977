// SPDX-License-Identifier: Apache-2.0
// What is left of calls whose wrapper, shell, child or agent is killed, which leave processes behind and nest, under a
// daemon that is restarted and killed.
import { TestDaemon } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { type KillsResult, soak } from './soak/kills.ts';

const calls = count('CALLS', 10_000);
const parallel = count('PARALLEL', 6);
const seed = count('SEED', 1);
const daemonEvery = count('DAEMON_EVERY', 100);

// Every record is looked for at the end.
const daemon = await new TestDaemon({ config: `store: { keepCalls: ${2 * calls} }\n` }).start();
try {
  const results: KillsResult = await soak(daemon, { calls, parallel, seed, daemonEvery });
  console.dir(results, { depth: null });
  record('soak', { calls, parallel, seed, daemonEvery }, results);
} finally {
  await daemon.close();
}
