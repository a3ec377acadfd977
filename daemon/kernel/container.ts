// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { files } from './files.ts';

/**
 * The memory that a caller's own cgroup still allows it: a call that is placed outside a container
 * must not escape the container's limit.
 * @param rootPath the daemon's root, as a path in the file system.
 * @param rootProcPath the same, as in /proc/PID/cgroup.
 * @param callerProcPath the caller's cgroup, as in /proc/PID/cgroup.
 * @returns bytes, or undefined if no ancestor of the caller that is not the root's too is limited. At least
 *   one page.
 */
export function containerCeiling(
  rootPath: string,
  rootProcPath: string,
  callerProcPath: string,
): number | undefined {
  const mount = rootPath.slice(0, rootPath.length - rootProcPath.length);
  let ceiling: number | undefined;
  for (let path = callerProcPath; path.length > 1; path = path.slice(0, path.lastIndexOf('/'))) {
    // From here on it holds for what is below the root as well.
    if (rootProcPath.startsWith(`${path}/`)) break;
    const maxBytes = number(`${mount}${path}/${files.memoryMax}`);
    if (maxBytes === undefined) continue;
    const usedBytes = number(`${mount}${path}/${files.memoryCurrent}`) ?? 0;
    const leftBytes = Math.max(4096, maxBytes - usedBytes);
    ceiling = Math.min(ceiling ?? leftBytes, leftBytes);
  }
  return ceiling;
}

/**
 * The nearest cgroup that a process is in and that has a memory.max of its own: that of its container.
 * @returns as in /proc/PID/cgroup; undefined if there is none but what the root is in too.
 */
export function limitedAncestor(
  mount: string,
  rootProcPath: string,
  callerProcPath: string,
): string | undefined {
  for (let path = callerProcPath; path.length > 1; path = path.slice(0, path.lastIndexOf('/'))) {
    if (rootProcPath.startsWith(`${path}/`)) return undefined;
    if (number(`${mount}${path}/${files.memoryMax}`) !== undefined) return path;
  }
  return undefined;
}

/** Undefined for `max`, and where the memory controller is off or the cgroup has gone. */
function number(path: string): number | undefined {
  try {
    const text = readFileSync(path, 'latin1').trim();
    return /^\d+$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined;
  }
}
