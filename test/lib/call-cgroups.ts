// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync } from 'node:fs';
import type { TestDaemon } from './daemon.ts';

/**
 * The directory of a call's cgroup, looked up in the tree: it is there without a daemon too.
 * @throws Error if the call has none.
 */
export function cgroupOf(daemon: TestDaemon, id: string | undefined): string {
  for (const session of readdirSync(daemon.cgroup)) {
    const path = `${daemon.cgroup}/${session}/${id}`;
    if (existsSync(path)) return path;
  }
  throw new Error(`${id}: no cgroup`);
}

/** The names of the calls' cgroups that are left below the root. */
export function leftIn(daemon: TestDaemon): string[] {
  return readdirSync(daemon.cgroup, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap((session) =>
      readdirSync(`${daemon.cgroup}/${session.name}`, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => entry.name),
    );
}
