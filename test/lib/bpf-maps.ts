// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename } from 'node:path';

const PINS = '/sys/fs/bpf/agentrm';

/** Maps that have entries for calls and their processes. */
const MAPS = ['policies', 'stats', 'stops', 'sampled'];

/**
 * How many entries the maps of a daemon with BPF hold.
 * @param cgroup below which it has its calls
 */
export function mapEntries(cgroup: string): Record<string, number> {
  const id = statSync(cgroup).ino;
  const pins = readdirSync(PINS).find((name) => name.endsWith(`-${id}`));
  if (pins === undefined) throw new Error(`${PINS}: nothing is pinned for ${basename(cgroup)}`);
  const entries: Record<string, number> = {};
  for (const map of MAPS) {
    const path = `${PINS}/${pins}/maps/${map}`;
    if (!existsSync(path)) throw new Error(`${path}: no such map`);
    const dump = execFileSync('bpftool', ['-j', 'map', 'dump', 'pinned', path], {
      encoding: 'utf8',
      maxBuffer: 64 * 2 ** 20,
    });
    entries[map] = (JSON.parse(dump) as unknown[]).length;
  }
  return entries;
}

export const NO_ENTRIES: Readonly<Record<string, number>> = Object.fromEntries(MAPS.map((map) => [map, 0]));
