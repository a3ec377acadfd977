// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs';
import { type TestDaemon, until } from '../lib/daemon.ts';
import { claudeCodeMissing } from './claude-code.ts';

function enforcementMissing(): string | false {
  if (process.getuid?.() !== 0) return 'needs root';
  try {
    const controllers = readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8');
    return controllers.includes('memory') ? false : 'cgroup v2 has no memory controller';
  } catch {
    return 'no cgroup v2 at /sys/fs/cgroup';
  }
}

/** Why Claude Code cannot run under limits here, or false; fits the `skip` option of a test. */
export const managedMissing: string | false = claudeCodeMissing || enforcementMissing();

/** A command that takes so much memory, says so and ends. */
export function take(mebibytes: number): string {
  return `python3 -c 'print(len(b"x" * (${mebibytes} << 20)) >> 20, "MiB taken")'`;
}

/** Resolves once a session has ended and its cgroup is gone: no process of it is left then. */
export async function sessionGone(daemon: TestDaemon, id: string): Promise<void> {
  await daemon.event((event) => event.kind === 'session-end' && event.session === id);
  const session = /^s[0-9a-f]{12}$/;
  await until(() => !readdirSync(daemon.cgroup).some((name) => session.test(name)), 'its cgroup is gone');
}
