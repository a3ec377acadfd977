// SPDX-License-Identifier: Apache-2.0
// A command whose intent is far too small is stopped, lent memory and goes on, again and again: does it always end
// well, and with the same output as without any limit?
import { createHash } from 'node:crypto';
import { agentrmBash, TestDaemon } from '../lib/daemon.ts';
import { count, record } from './record.ts';
import { output, requireKernel } from './tools.ts';

const runs = count('RUNS', 200, 50);
/** Sorts numbers in memory, some 25 MiB, and prints them: any byte that is lost or doubled shows. */
const command = `perl -e 'print join "\\n", sort { $a <=> $b } map { $_ * 7919 % 1000003 } 1 .. 150000'`;
const intent = 'memory.high=8M';
const config = 'lend: { stepPercent: 1, stepMin: 4M, roomShare: 1000, least: 1M }\n';

const hash = (text: string) => createHash('sha256').update(text).digest('hex');
const expected = hash((await output(['/bin/bash', '-c', command])).stdout);

const daemon = await new TestDaemon({ config }).start();
/** Numbers of runs, but for `freezes`. */
export interface FreezeThawResults {
  exitZero: number;
  identical: number;
  frozen: number;
  freezes: number;
  spokeOnStderr: number;
}

const ran: FreezeThawResults = { exitZero: 0, identical: 0, frozen: 0, freezes: 0, spokeOnStderr: 0 };
try {
  await requireKernel(daemon);
  for (let run = 0; run < runs; run += 1) {
    try {
      const env = daemon.env({ AGENTRM_INTENT: intent });
      const { stdout, stderr } = await output([agentrmBash, '-c', command], { env });
      ran.exitZero += 1;
      if (hash(stdout) === expected) ran.identical += 1;
      if (stderr !== '') ran.spokeOnStderr += 1;
    } catch (error) {
      console.error(error);
    }
    const freezes = ((await daemon.status()).counters.freezes ?? 0) - ran.freezes;
    if (freezes > 0) ran.frozen += 1;
    ran.freezes += freezes;
    record('freeze-thaw', { runs: run + 1 }, ran);
  }
  console.log(ran);
} finally {
  await daemon.close();
}
process.exitCode = ran.identical === runs && ran.frozen === runs ? 0 : 1;
