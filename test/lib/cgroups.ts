// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from './daemon.ts';

/** Kills what lives in a cgroup and below it, and removes it all. */
export async function removeCgroup(path: string): Promise<void> {
  if (!existsSync(path)) return;
  writeFileSync(join(path, 'cgroup.kill'), '1');
  await until(
    () => readFileSync(join(path, 'cgroup.events'), 'utf8').includes('populated 0'),
    `${path} empty`,
  );
  removeEmpty(path);
}

function removeEmpty(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true }))
    if (entry.isDirectory()) removeEmpty(join(path, entry.name));
  rmdirSync(path);
}
