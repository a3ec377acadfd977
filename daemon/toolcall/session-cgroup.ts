// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { errnoOf } from '../errors.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import { type CgroupRoot, enableAll } from '../kernel/tree.ts';
import type { Limits } from '../policy/limits.ts';
import type { Lines } from '../policy/lines.ts';
import type { Guarantees } from './guarantees.ts';
import { applyFiles, type LimitFile, limitFiles, weightFiles } from './limit-files.ts';

type Weights = Pick<Limits, 'cpuWeight' | 'ioWeight'>;

/** What a call declares, and where that puts the lines for the kernel. */
export interface CallLimits {
  readonly limits: Limits;
  readonly lines: Lines;
}

/**
 * The cgroup of a session and, in it, one spare for the next call: made with the default limits
 * while nothing waits, so that a call pays only for the limits in which it differs.
 */
export class SessionCgroup {
  readonly cgroup: Cgroup;
  readonly root: CgroupRoot;
  /** Its name, which is that of the session. */
  readonly name: string;
  readonly #usual: CallLimits;
  #spare: Cgroup | undefined;
  /** Undefined in a container, which shares its own memory out. */
  readonly #guarantees: Guarantees | undefined;
  /** What the kernel has; undefined: an earlier daemon may have written something. */
  #weights: Weights | undefined;
  /** Nothing of it runs: its next call says what its weights are. */
  #weightsOver = false;

  /**
   * Makes the session's cgroup, or opens the one that is there.
   * @param usual what most calls get: the spare is made with it.
   */
  constructor(root: CgroupRoot, name: string, usual: CallLimits, guarantees: Guarantees | undefined) {
    this.root = root;
    this.name = name;
    this.#usual = usual;
    this.#guarantees = guarantees;
    this.cgroup = root.cgroup.openOrMakeChild(name);
    enableAll(this.cgroup, root.controllers, `${root.path}/${name}`);
  }

  /** As in /proc/PID/cgroup. */
  get procPath(): string {
    return `${this.root.procPath}/${this.name}`;
  }

  get path(): string {
    return `${this.root.path}/${this.name}`;
  }

  /**
   * A cgroup for a call with its limits in force.
   * @throws the kernel's error, with path and errno; nothing is left behind then.
   */
  take(limits: CallLimits): Cgroup {
    this.raiseWeights(limits.limits);
    this.#guarantees?.raise(this.cgroup, limits.limits.class);
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare !== undefined) {
      try {
        // memory.high is written in any case: that fails if somebody removed the cgroup meanwhile.
        const set = new Map(this.#files(this.#usual).map((entry) => [entry.file, entry.value]));
        applyFiles(
          spare,
          this.#files(limits).filter(
            ({ file, value }) => file === files.memoryHigh || set.get(file) !== value,
          ),
        );
        return spare;
      } catch {
        // Somebody removed it, or it holds what it should not: a fresh one tells what is wrong.
        this.discard(spare);
      }
    }
    return this.#make(limits);
  }

  /** The class of a call counts that was not taken here with it: an earlier daemon left it, or it is another now. */
  guarantee(limits: Limits): void {
    this.#guarantees?.raise(this.cgroup, limits.class);
  }

  /** What the session keeps when memory is short. */
  get guaranteedBytes(): number {
    return this.#guarantees?.of(this.cgroup) ?? 0;
  }

  /** Makes the spare if there is none. Errors are the next call's to report. */
  prepare(): void {
    if (this.#spare !== undefined) return;
    try {
      this.#spare = this.#make(this.#usual);
    } catch {
      this.#spare = undefined;
    }
  }

  /** Removes the spare and the session's cgroup; false if something still lives in it. */
  remove(): boolean {
    if (this.#spare !== undefined) this.discard(this.#spare);
    this.#spare = undefined;
    try {
      this.root.cgroup.removeChild(this.cgroup.name);
    } catch (error) {
      // ENOENT, ENODEV: somebody removed it. EBADF: with its container, whose root is closed.
      if (!['ENOENT', 'ENODEV', 'EBADF'].includes(errnoOf(error) ?? '')) return false;
    }
    this.#guarantees?.drop(this.cgroup);
    this.cgroup.close();
    return true;
  }

  /** Closes without removing: the next daemon adopts what is there. */
  close(): void {
    if (this.#spare !== undefined) this.discard(this.#spare);
    this.#spare = undefined;
    this.cgroup.close();
  }

  /**
   * A call's weight competes within its session only; between sessions the session's counts. It is that
   * of the most important of its calls that live, to which this one has come.
   */
  raiseWeights(limits: Weights): void {
    if (this.#weights === undefined || this.#weightsOver || limits.cpuWeight > this.#weights.cpuWeight)
      this.setWeights(limits);
  }

  /** Its weights against other sessions from now on: those of the most important of its calls that live. */
  setWeights({ cpuWeight, ioWeight }: Weights): void {
    this.#weightsOver = false;
    // A session's calls are alike mostly, and each of them comes here.
    if (this.#weights?.cpuWeight === cpuWeight && this.#weights.ioWeight === ioWeight) return;
    this.#weights = undefined;
    applyFiles(this.cgroup, weightFiles({ cpuWeight, ioWeight }, this.root.controllers));
    this.#weights = { cpuWeight, ioWeight };
  }

  /** Its next call is its most important one. */
  forgetWeights(): void {
    this.#weightsOver = true;
  }

  #files({ limits, lines }: CallLimits): LimitFile[] {
    return limitFiles(limits, lines, this.root.controllers);
  }

  #make(limits: CallLimits): Cgroup {
    const cgroup = this.cgroup.makeChild(`c${randomBytes(6).toString('hex')}`);
    try {
      applyFiles(cgroup, this.#files(limits));
      return cgroup;
    } catch (error) {
      this.discard(cgroup);
      throw error;
    }
  }

  /** Removes a call's cgroup that is not used after all. */
  discard(cgroup: Cgroup): void {
    try {
      this.cgroup.removeChild(cgroup.name);
    } catch {
      // Not empty, or gone: the session's end kills and removes whatever is left in it.
    }
    cgroup.close();
  }
}
