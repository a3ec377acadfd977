// SPDX-License-Identifier: Apache-2.0
import { cgroupPathOf, childrenOf, type ProcessId, processStat } from '../kernel/proc.ts';
import { type Call, isWithin } from './call.ts';

/**
 * How often the processes of a call are looked up. What it is for is not the limit (nobody can hold a
 * process that may leave) but that somebody learns of it: a second late is soon enough, and a look costs
 * one small file a process.
 */
const LOOK_MS = 1000;
/** Processes of one call that are remembered; a fork storm must not grow the daemon. */
const MAX_KNOWN = 1024;

/** Of so many processes of one call the children are asked for: each costs the opening of a file. */
const MAX_PARENTS = 64;

/** A process that was in a call's cgroup, or is the child of one, and is somewhere else now. */
export interface Escaped {
  readonly pid: number;
  readonly comm: string;
  /** Where it is, as in /proc/PID/cgroup. */
  readonly cgroup: string;
}

interface Known {
  readonly startTicks: number;
  left: boolean;
}

interface Watched {
  /** Children that the wrapper had before its command. */
  readonly others: ReadonlySet<number>;
  readonly known: Map<number, Known>;
}

/**
 * Notices processes that leave their call's cgroup by themselves, which they can where the daemon has no
 * more rights than they have. A process that comes and leaves between two looks, after its parent has
 * ended, is not seen.
 */
export class EscapeWatch {
  readonly #onEscape: (call: Call, process: Escaped) => void;
  readonly #procRoot: string;
  readonly #watched = new Map<Call, Watched>();
  #timer: NodeJS.Timeout | undefined;

  constructor(onEscape: (call: Call, process: Escaped) => void, procRoot = '/proc') {
    this.#onEscape = onEscape;
    this.#procRoot = procRoot;
  }

  /** Begins to watch a call, before its command is started or when it has been placed. */
  add(call: Call): void {
    // What executed the wrapper may have had children of its own.
    const others = new Set(this.#childrenOutside(call.wrapper.pid, new Set(procsOf(call))));
    this.#watched.set(call, { others, known: new Map() });
    this.#timer ??= setInterval(() => this.#lookAtAll(), LOOK_MS).unref();
  }

  remove(call: Call): void {
    this.#watched.delete(call);
    if (this.#watched.size === 0) this.close();
  }

  /** Looks at one call now, because something about it has changed. */
  look(call: Call): void {
    const watched = this.#watched.get(call);
    if (watched === undefined) return;
    const { known, others } = watched;
    const inside = new Set(procsOf(call));
    for (const pid of inside) this.#learn(known, pid, false);
    // The command itself is a child of the wrapper.
    const outside = this.#childrenOutside(call.wrapper.pid, inside).filter((pid) => !others.has(pid));
    for (const pid of [...inside].slice(0, MAX_PARENTS)) outside.push(...this.#childrenOutside(pid, inside));
    for (const [pid, { startTicks }] of known) {
      if (inside.has(pid)) continue;
      const stat = processStat(pid, this.#procRoot);
      if (stat === undefined || stat.startTicks !== startTicks || stat.state === 'Z') known.delete(pid);
      else outside.push(pid);
    }
    for (const pid of outside) this.#judge(call, known, pid);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#watched.clear();
  }

  #lookAtAll(): void {
    for (const call of this.#watched.keys()) {
      try {
        this.look(call);
      } catch {
        // Out of descriptors, say: the next look may see it.
      }
    }
  }

  #learn(known: Map<number, Known>, pid: number, left: boolean): void {
    const before = known.get(pid);
    if (before !== undefined) {
      // Back again: if it leaves once more that is news.
      before.left = left;
      return;
    }
    if (known.size >= MAX_KNOWN) return;
    const id: ProcessId | undefined = processStat(pid, this.#procRoot);
    if (id !== undefined) known.set(pid, { startTicks: id.startTicks, left });
  }

  #childrenOutside(pid: number, inside: ReadonlySet<number>): number[] {
    return childrenOf(pid, this.#procRoot).filter((child) => !inside.has(child));
  }

  #judge(call: Call, known: Map<number, Known>, pid: number): void {
    if (known.get(pid)?.left) return;
    const cgroup = cgroupPathOf(pid, this.#procRoot);
    const stat = processStat(pid, this.#procRoot);
    // In a cgroup that the call has made below its own it is held as before.
    if (cgroup === undefined || stat === undefined || stat.state === 'Z' || isWithin(call, cgroup)) return;
    this.#learn(known, pid, true);
    this.#onEscape(call, { pid, comm: stat.comm, cgroup });
  }
}

/** Nothing where the cgroup was removed. */
function procsOf(call: Call): number[] {
  try {
    return call.cgroup.procs();
  } catch {
    return [];
  }
}
