// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs';

/** The number that the kernel gave last. It gives the next free one. */
const LAST_PID = '/proc/sys/kernel/ns_last_pid';

/** Why this host cannot give a number again; undefined: it can. */
export const cannotRecycle = ((): string | undefined => {
  try {
    accessSync(LAST_PID, constants.W_OK);
    writeFileSync(LAST_PID, readFileSync(LAST_PID));
    return undefined;
  } catch {
    return 'needs root, and a kernel with ns_last_pid';
  }
})();

/** A process that got the number of one which has ended, as happens by chance after all others were used up. */
export async function processWith(pid: number): Promise<ChildProcess> {
  for (;;) {
    while (existsSync(`/proc/${pid}`)) await new Promise(setImmediate);
    writeFileSync(LAST_PID, String(pid - 1));
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
    if (child.pid === pid) return child;
    // Somebody else forked in between.
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
}
