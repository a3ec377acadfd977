// SPDX-License-Identifier: Apache-2.0
import { closeSync, fstatSync, openSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { AgentrmError, errnoOf, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { Cgroup } from './cgroup.ts';
import { limitedAncestor } from './container.ts';
import { files, STATE_XATTR } from './files.ts';
import type { Native, Watch } from './native.ts';
import { type CgroupRoot, openRoot, WANTED } from './tree.ts';

/** Below a container's own cgroup: what it ran in it, and what we put there. */
const PROCESSES = 'agentrm-processes';
const ROOT = 'agentrm';

/**
 * Passes over a container's processes. A process that forks while its siblings are moved leaves a child
 * behind for the next pass; one that is still at it after so many is a fork storm.
 */
const PASSES = 8;

/** Containers that are remembered because they cannot hold calls. */
const MAX_REFUSED = 256;

export interface ContainerRootsOptions {
  readonly native: Native;
  /** The daemon's own. */
  readonly root: CgroupRoot;
  /** Whether new calls go below their containers; those that are there are looked after in any case. */
  readonly enabled: () => boolean;
  readonly log: Log;
  /** A root was opened, or closed; to be guarded as the main one is. */
  readonly onOpened: (root: CgroupRoot) => void;
  readonly onClosed: (root: CgroupRoot) => void;
  readonly procRoot?: string;
}

interface Open {
  readonly root: CgroupRoot;
  /** cgroup.events of the container, which tells of its end. */
  readonly eventsFd: number;
  readonly watch: Watch;
}

/**
 * The roots below which calls from containers get their cgroups: each below the cgroup of its container,
 * so that whatever holds for the container holds for them.
 */
export class ContainerRoots {
  readonly #options: ContainerRootsOptions;
  readonly #procRoot: string;
  /** By the container's path, as in /proc/PID/cgroup. */
  readonly #roots = new Map<string, Open>();
  readonly #opening = new Map<string, Promise<CgroupRoot>>();
  readonly #refused = new Set<string>();
  #closed = false;

  constructor(options: ContainerRootsOptions) {
    this.#options = options;
    this.#procRoot = options.procRoot ?? '/proc';
  }

  /** The root that a process is below, which is then inside a call. */
  around(procPath: string): CgroupRoot | undefined {
    for (const { root } of this.#roots.values()) if (procPath.startsWith(`${root.procPath}/`)) return root;
    return undefined;
  }

  /**
   * The root for calls of a process: made below its container if there is none, off the main thread,
   * because each move waits for the kernel (kernel-notes/placement.md).
   * @returns undefined if it is in no container that is limited, or in one that has refused before.
   * @throws AgentrmError AGENTRM_ERR_CGROUP, as a rejection, if the container's cgroup cannot hold calls.
   */
  of(pid: number, procPath: string): CgroupRoot | undefined | Promise<CgroupRoot> {
    const { root, enabled } = this.#options;
    if (!enabled() || !this.#isApart(pid)) return undefined;
    const container = limitedAncestor(root.mount, root.procPath, procPath);
    if (container === undefined || this.#refused.has(container)) return undefined;
    const known = this.#roots.get(container);
    if (known !== undefined && isThere(known.root)) return known.root;
    // A container of the same name has taken its place.
    if (known !== undefined) this.#forget(container);
    let opening = this.#opening.get(container);
    if (opening === undefined) {
      opening = this.#prepare(container).finally(() => this.#opening.delete(container));
      this.#opening.set(container, opening);
    }
    return opening;
  }

  /**
   * The roots that an earlier daemon left.
   * @returns those that are still there.
   */
  restore(): CgroupRoot[] {
    const { root, log } = this.#options;
    for (const container of savedContainers(root.cgroup)) {
      try {
        // Without its directory there is nothing to take over, and no reason to make it.
        Cgroup.open(this.#options.native, `${root.mount}${container}/${ROOT}`).close();
        this.#open(container);
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') log.warn({ err: error, container }, 'container not taken over');
      }
    }
    this.#save();
    return [...this.#roots.values()].map((open) => open.root);
  }

  /** Closes without removing: the next daemon takes over what is there. */
  close(): void {
    this.#closed = true;
    for (const container of [...this.#roots.keys()]) this.#forget(container);
  }

  /** A container has a namespace of its own; a limit alone may as well be that of a service. */
  #isApart(pid: number): boolean {
    try {
      return ['pid', 'cgroup'].some((kind) => this.#namespace('self', kind) !== this.#namespace(pid, kind));
    } catch {
      return false; // it has gone, or is not this user's to look at
    }
  }

  #namespace(pid: number | 'self', kind: string): string {
    return readlinkSync(`${this.#procRoot}/${pid}/ns/${kind}`);
  }

  async #prepare(container: string): Promise<CgroupRoot> {
    const path = this.#pathOf(container);
    try {
      refuseForeign(path);
      const above = Cgroup.open(this.#options.native, path);
      try {
        await moveProcesses(above);
        await enableOffThread(above);
        if (this.#closed) throw new Error('the daemon stops');
        return this.#open(container);
      } catch (error) {
        await putBack(above);
        throw new AgentrmError('AGENTRM_ERR_CGROUP', `${path} cannot hold calls: ${messageOf(error)}`, error);
      } finally {
        above.close();
      }
    } catch (error) {
      // Its processes are not moved to and fro for each call.
      if (this.#refused.size >= MAX_REFUSED) this.#refused.clear();
      this.#refused.add(container);
      throw error;
    }
  }

  /** Of a container that has been prepared. */
  #open(container: string): CgroupRoot {
    const { native } = this.#options;
    const path = this.#pathOf(container);
    const root = openRoot(native, `${path}/${ROOT}`, this.#procRoot);
    let eventsFd = -1;
    try {
      // Made by somebody else in the moment between.
      if (fstatSync(root.cgroup.fd).uid !== process.geteuid?.()) throw foreign(path);
      eventsFd = openSync(`${path}/${files.events}`, 'r');
      const watch = native.watch(eventsFd, 'priority', () => {
        if (!isPopulated(path)) this.#ended(container);
      });
      this.#roots.set(container, { root, eventsFd, watch });
    } catch (error) {
      if (eventsFd >= 0) closeSync(eventsFd);
      root.cgroup.close();
      throw error;
    }
    this.#save();
    this.#options.onOpened(root);
    return root;
  }

  /** The last process of a container has gone, those of calls included. */
  #ended(container: string): void {
    this.#forget(container);
    this.#save();
  }

  #forget(container: string): void {
    const open = this.#roots.get(container);
    if (open === undefined) return;
    this.#roots.delete(container);
    open.watch.close();
    closeSync(open.eventsFd);
    open.root.cgroup.close();
    this.#options.onClosed(open.root);
  }

  #pathOf(container: string): string {
    return `${this.#options.root.mount}${container}`;
  }

  #save(): void {
    try {
      this.#options.root.cgroup.setState(STATE_XATTR, JSON.stringify([...this.#roots.keys()]));
    } catch (error) {
      this.#options.log.error({ err: error }, 'containers not saved: a next daemon will not know of them');
    }
  }
}

/** Whoever made it could change the limits of calls, and remove them. */
function refuseForeign(path: string): void {
  const owner = statSync(`${path}/${ROOT}`, { throwIfNoEntry: false })?.uid;
  if (owner !== undefined && owner !== process.geteuid?.()) throw foreign(path);
}

function foreign(path: string): AgentrmError {
  return new AgentrmError('AGENTRM_ERR_CGROUP', `${path}/${ROOT} belongs to somebody else`);
}

function isThere(root: CgroupRoot): boolean {
  return statSync(root.path, { throwIfNoEntry: false })?.ino === root.cgroup.id;
}

/** What was removed under us holds nothing. */
function isPopulated(path: string): boolean {
  try {
    return readFileSync(`${path}/${files.events}`, 'latin1').includes('populated 1');
  } catch {
    return false;
  }
}

/** A cgroup that gives controllers to its children may hold no process itself. */
async function moveProcesses(container: Cgroup): Promise<void> {
  if (container.procs().length === 0) return;
  const leaf = container.openOrMakeChild(PROCESSES);
  try {
    for (let pass = 0; pass < PASSES; pass += 1) {
      const pids = container.procs();
      if (pids.length === 0) return;
      for (const pid of pids) await join(leaf, pid);
    }
  } finally {
    leaf.close();
  }
}

/** All at once; what cannot be had is found and told by openRoot(), one by one. */
async function enableOffThread(container: Cgroup): Promise<void> {
  const offered = new Set(container.read(files.controllers).trim().split(/\s+/));
  const wanted = WANTED.filter((controller) => offered.has(controller)).map((controller) => `+${controller}`);
  await container.writeOffThread(files.subtreeControl, wanted.join(' ')).catch(() => {});
}

/** It runs as before if it cannot hold calls. */
async function putBack(container: Cgroup): Promise<void> {
  let leaf: Cgroup;
  try {
    leaf = container.child(PROCESSES);
  } catch {
    return;
  }
  try {
    for (const pid of leaf.procs()) await join(container, pid);
    container.removeChild(PROCESSES);
  } catch {
    // Its controllers are on already: then this is where its processes belong.
  } finally {
    leaf.close();
  }
}

async function join(cgroup: Cgroup, pid: number): Promise<void> {
  try {
    await cgroup.writeOffThread(files.procs, String(pid));
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
}

function savedContainers(cgroup: Cgroup): string[] {
  try {
    const value: unknown = JSON.parse(cgroup.getState(STATE_XATTR) ?? '[]');
    return Array.isArray(value) ? value.filter((entry) => typeof entry === 'string') : [];
  } catch {
    return [];
  }
}
