// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { AgentrmError, errnoOf, messageOf } from '../errors.ts';
import { Cgroup } from './cgroup.ts';
import { files } from './files.ts';
import type { Native } from './native.ts';

/** The controllers that calls are limited with. Only memory is indispensable. */
export const WANTED = ['memory', 'pids', 'cpu', 'io'] as const;

export interface CgroupRoot {
  readonly path: string;
  /** Where the hierarchy is mounted. */
  readonly mount: string;
  readonly cgroup: Cgroup;
  /** As it stands in the `0::` line of /proc/PID/cgroup, without a slash at the end. */
  readonly procPath: string;
  /** Depth below the root of the hierarchy: /sys/fs/cgroup/agentrm is 1. */
  readonly level: number;
  readonly controllers: ReadonlySet<string>;
  /** What could not be enabled, a sentence each. */
  readonly degraded: readonly string[];
}

/** Where cgroup v2 is mounted, found by the longest mount point that is a prefix of the path. */
export function cgroupMountOf(path: string, procRoot = '/proc'): string | undefined {
  return cgroupMounts(procRoot)
    .filter((mount) => path === mount || path.startsWith(`${mount}/`))
    .reduce<string | undefined>(
      (best, mount) => ((best?.length ?? 0) > mount.length ? best : mount),
      undefined,
    );
}

/** Every mount point of cgroup v2, outer ones first. */
export function cgroupMounts(procRoot = '/proc'): string[] {
  const lines = readFileSync(`${procRoot}/self/mountinfo`, 'utf8').split('\n');
  return lines.flatMap((line) => {
    const [before, after] = line.split(' - ');
    const mount = before?.split(' ')[4]?.replace(/\\([0-7]{3})/g, unescapeOctal);
    return mount !== undefined && after?.startsWith('cgroup2 ') ? [mount] : [];
  });
}

/** Blanks and backslashes stand as `\040` in mountinfo, proc(5). */
function unescapeOctal(_: string, digits: string): string {
  return String.fromCharCode(Number.parseInt(digits, 8));
}

/**
 * Makes the root of the daemon's tree if it is not there and turns the controllers on, in its
 * parent and in itself. Processes must live in neither (no-internal-process rule, cgroup-v2.rst).
 * @throws AgentrmError AGENTRM_ERR_CGROUP if the path is not on cgroup v2 or memory is not to be had.
 */
export function openRoot(native: Native, configured: string, procRoot = '/proc'): CgroupRoot {
  // Without `..` and a slash at the end: it is compared with what /proc says of processes.
  const path = resolve(configured);
  const mount = cgroupMountOf(path, procRoot);
  if (mount === undefined || path === mount) {
    throw new AgentrmError('AGENTRM_ERR_CGROUP', `${path}: not a directory below a cgroup v2 mount`);
  }
  const degraded: string[] = [];
  let parent: Cgroup | undefined;
  let root: Cgroup | undefined;
  try {
    parent = Cgroup.open(native, dirname(path));
    const offered = new Set(parent.read(files.controllers).trim().split(/\s+/));
    for (const controller of WANTED) {
      if (!offered.has(controller))
        degraded.push(`${dirname(path)} does not offer the ${controller} controller`);
      else enable(parent, controller, dirname(path), degraded);
    }
    root = parent.openOrMakeChild(basename(path));
    const controllers = new Set(root.read(files.controllers).trim().split(/\s+/).filter(Boolean));
    if (!controllers.has('memory')) {
      throw new AgentrmError('AGENTRM_ERR_CGROUP', `${path}: no memory controller: ${degraded.join('; ')}`);
    }
    if (!enableAll(root, controllers, path, degraded).has('memory')) {
      throw new AgentrmError('AGENTRM_ERR_CGROUP', `no memory limits for calls: ${degraded.join('; ')}`);
    }
    return {
      path,
      mount,
      cgroup: root,
      procPath: path.slice(mount.length),
      level: path.slice(mount.length).split('/').length - 1,
      controllers,
      degraded,
    };
  } catch (error) {
    root?.close();
    if (error instanceof AgentrmError) throw error;
    throw new AgentrmError('AGENTRM_ERR_CGROUP', `${path}: ${messageOf(error)}`, error);
  } finally {
    parent?.close();
  }
}

/**
 * Turns the wanted controllers on for the children of a cgroup; what fails is added to `degraded`.
 * @returns those that are on.
 */
export function enableAll(
  cgroup: Cgroup,
  controllers: ReadonlySet<string>,
  path: string,
  degraded: string[] = [],
): ReadonlySet<string> {
  const wanted = WANTED.filter((controller) => controllers.has(controller));
  try {
    cgroup.write(files.subtreeControl, wanted.map((controller) => `+${controller}`).join(' '));
    return new Set(wanted);
  } catch {
    // All in one write fails as a whole; one by one keeps those that can be had.
    return new Set(wanted.filter((controller) => enable(cgroup, controller, path, degraded)));
  }
}

/** The names of the child cgroups of a directory. */
export function childNames(path: string): string[] {
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
}

function enable(cgroup: Cgroup, controller: string, path: string, degraded: string[]): boolean {
  try {
    cgroup.write(files.subtreeControl, `+${controller}`);
    return true;
  } catch (error) {
    degraded.push(`${path}/${files.subtreeControl}: +${controller}: ${errnoOf(error) ?? messageOf(error)}`);
    return false;
  }
}
