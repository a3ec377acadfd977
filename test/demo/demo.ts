// SPDX-License-Identifier: Apache-2.0
/* Three commands as an agent would run them, with what became of each and why. Needs a machine that can enforce. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { release } from 'node:os';
import type { CallRecord } from '../../daemon/control/types.ts';
import { formatBytes } from '../../daemon/units.ts';
import { agentrmBash, TestDaemon, top } from '../lib/daemon.ts';

// Some 70 MiB at its peak.
const exporting =
  'python3 -c \'import json; print(len(json.dumps(list(range(1_000_000)))), "bytes of JSON")\'';
const leaking = "python3 -c 'leak = []\nwhile True: leak.append(bytearray(2**20))'";

const daemon = await new TestDaemon({ config: 'log: { commands: full }\n' }).start();
try {
  const { backend } = await daemon.status();
  console.log(
    `Linux ${release()}; limits are enforced by: ${backend.mode}${backend.reason ? ` (${backend.reason})` : ''}`,
  );

  await show('A command with the default limits: nobody is in its way.', exporting);
  await show(
    'The same, but it has declared far less than it needs. The kernel throttles it at memory.high\n' +
      'and freezes it; the daemon lends it memory and lets it go on.',
    exporting,
    'memory.high=24M memory.max=256M',
  );
  await show(
    'A leak. It is lent memory up to its memory.max and then killed; the line is for the agent.',
    leaking,
    'memory.high=24M memory.max=96M',
  );

  console.log('\nWhat the daemon has seen:\n\n$ agentrm calls');
  await run(`${top}dist/agentrm`, ['--socket', daemon.socket, 'calls']);
} finally {
  await daemon.close();
}

/** Runs a command through the wrapper as an agent does, and tells what the daemon recorded of it. */
async function show(title: string, command: string, intent?: string): Promise<void> {
  const prefix = intent === undefined ? '' : `AGENTRM_INTENT="${intent}" `;
  console.log(`\n${title}\n\n$ ${prefix}agentrm-bash -c "${command.replaceAll('"', '\\"')}"`);
  const status = await run(
    agentrmBash,
    ['-c', command],
    daemon.env(intent === undefined ? {} : { AGENTRM_INTENT: intent }),
  );
  const record = (await daemon.calls()).at(-1);
  console.log(`${status}${record ? `; ${told(record)}` : ''}`);
}

/** Runs a program with both its outputs on our stdout, in the order of writing. @returns how it ended. */
async function run(file: string, args: readonly string[], env = process.env): Promise<string> {
  const child = spawn(file, args, { env, stdio: ['ignore', process.stdout.fd, process.stdout.fd] });
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return signal === null ? `exit ${code}` : `killed by ${signal}`;
}

function told({ memory, decisions }: CallRecord): string {
  const lines = decisions.map(
    ({ atMs, action, reason }) => `\n${String(atMs).padStart(8)} ms  ${action.padEnd(9)} ${reason}`,
  );
  return `at most ${formatBytes(memory.peakBytes)} of memory${lines.join('')}`;
}
