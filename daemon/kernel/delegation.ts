// SPDX-License-Identifier: Apache-2.0
import { readFileSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { AgentrmError, errnoOf, messageOf } from '../errors.ts';
import { Cgroup } from './cgroup.ts';
import { files } from './files.ts';
import type { Native } from './native.ts';
import { cgroupPathOf } from './proc.ts';
import { cgroupMounts } from './tree.ts';

/*
 * A daemon that is not root works in a part of the hierarchy that was delegated to its user: it owns the
 * directories there, and moves processes between them, but none in from outside.
 */

/** The daemon's own place in a cgroup that it shares with calls: only leaves may hold processes. */
const LEAF = 'agentrmd';
const CALLS = 'calls';

/**
 * Makes room for calls in the cgroup that this process was started in: moves it to a leaf there.
 * @returns the path for openRoot().
 * @throws AgentrmError AGENTRM_ERR_CGROUP if the cgroup is not this user's or others live in it.
 */
export function takeOwnCgroup(native: Native, procRoot = '/proc'): string {
  const mount = cgroupMounts(procRoot)[0];
  const own = cgroupPathOf(process.pid, procRoot);
  if (mount === undefined || own === undefined) {
    throw new AgentrmError('AGENTRM_ERR_CGROUP', 'cgroup v2 is not mounted');
  }
  const path = `${mount}${own === '/' ? '' : own}`;
  // Put there by an earlier start in the same place, or by DelegateSubgroup=.
  if (basename(path) === LEAF) return `${dirname(path)}/${CALLS}`;
  const cgroup = Cgroup.open(native, path);
  let leaf: Cgroup | undefined;
  try {
    const others = cgroup.procs().filter((pid) => pid !== process.pid);
    if (others.length > 0) throw new Error(`other processes live there too, ${others[0]} for one`);
    leaf = cgroup.openOrMakeChild(LEAF);
    leaf.write(files.procs, String(process.pid));
    return `${path}/${CALLS}`;
  } catch (error) {
    throw new AgentrmError(
      'AGENTRM_ERR_CGROUP',
      `${path} cannot hold calls: ${messageOf(error)}; start agentrmd by systemctl --user, or by ` +
        'systemd-run --user -p Delegate=yes',
      error,
    );
  } finally {
    leaf?.close();
    cgroup.close();
  }
}

/** The nearest cgroup that both are in, as in /proc/PID/cgroup; '' is the top of the hierarchy. */
export function commonAncestor(a: string, b: string): string {
  const [left, right] = [a.split('/'), b.split('/')];
  const same = left.findIndex((name, index) => name !== right[index]);
  return left.slice(0, same < 0 ? left.length : same).join('/');
}

/**
 * Whether a user may bring its process from one cgroup to another below the root, which it owns: the
 * kernel asks for write permission on cgroup.procs of their common ancestor as well.
 * @param mount where the hierarchy is mounted.
 * @param rootProcPath the daemon's root, as in /proc/PID/cgroup.
 * @param fromProcPath where the process is, likewise.
 */
export function mayMove(mount: string, rootProcPath: string, fromProcPath: string, uid: number): boolean {
  const ancestor = commonAncestor(rootProcPath, fromProcPath === '/' ? '' : fromProcPath);
  try {
    const { uid: owner, mode } = statSync(`${mount}${ancestor}/${files.procs}`);
    return uid === 0 || (owner === uid && (mode & 0o200) !== 0);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** What the cgroups above a path leave of the memory of the host, in bytes. */
export interface MemoryAbove {
  readonly totalBytes: number;
  readonly availableBytes: number;
}

/**
 * The memory that a part of the hierarchy has: what the host has, or less where a cgroup above it is
 * limited, as a user's slice may be.
 * @param host what the host has.
 */
export function memoryBelow<T extends MemoryAbove>(host: T, mount: string, path: string): T {
  let { totalBytes, availableBytes } = host;
  for (let at = dirname(path); at.length > mount.length; at = dirname(at)) {
    const maxBytes = Math.min(numberIn(at, files.memoryMax), numberIn(at, files.memoryHigh));
    if (maxBytes === Number.POSITIVE_INFINITY) continue;
    totalBytes = Math.min(totalBytes, maxBytes);
    availableBytes = Math.min(availableBytes, Math.max(0, maxBytes - usedIn(at)));
  }
  return { ...host, totalBytes, availableBytes };
}

/** Page cache that can go does not count as used, as it does not in MemAvailable. */
function usedIn(path: string): number {
  const usedBytes = numberIn(path, files.memoryCurrent);
  return Number.isFinite(usedBytes) ? usedBytes - cacheIn(path) : 0;
}

function cacheIn(path: string): number {
  try {
    const stat = readFileSync(`${path}/${files.memoryStat}`, 'latin1');
    return Number(/^inactive_file (\d+)$/m.exec(stat)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Infinity for `max`, and where the file is not there. */
function numberIn(path: string, file: string): number {
  try {
    const text = readFileSync(`${path}/${file}`, 'latin1').trim();
    return /^\d+$/.test(text) ? Number(text) : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
