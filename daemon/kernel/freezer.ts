// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { errnoOf } from '../errors.ts';
import type { Cgroup } from './cgroup.ts';
import type { Enforcer } from './enforcer.ts';
import { files } from './files.ts';
import type { Native } from './native.ts';
import { cgroupPathOf, processStat } from './proc.ts';

/**
 * The hand-over from the SIGSTOP that BPF sends to the cgroup freezer, and back
 * (kernel-notes/handover.md). SIGSTOP is only the bridge: it shows to a parent that waits with
 * WUNTRACED, and `su`, `runuser` and `nsenter` then stop themselves. So it is taken back as soon as
 * the freezer holds the call, from every task that stopped since, and again after the thaw.
 */
export class Freezer {
  readonly #native: Native;
  readonly #enforcer: Enforcer;
  readonly #procRoot: string;

  constructor(native: Native, enforcer: Enforcer, procRoot = '/proc') {
    this.#native = native;
    this.#enforcer = enforcer;
    this.#procRoot = procRoot;
  }

  /**
   * Returns at once: a task in a throttle sleep counts as frozen only when that ends, 2 s at worst.
   * @param sinceNs when BPF stopped the first task, of CLOCK_MONOTONIC.
   */
  freeze(cgroup: Cgroup, procPath: string, sinceNs: bigint): void {
    cgroup.write(files.freeze, '1');
    this.continueStopped(cgroup, procPath, sinceNs);
  }

  /** What stops after the thaw is the next freeze's, so SIGCONT goes out before it. */
  thaw(cgroup: Cgroup, procPath: string, sinceNs: bigint): void {
    this.continueStopped(cgroup, procPath, sinceNs);
    cgroup.write(files.freeze, '0');
  }

  /**
   * Sends SIGCONT to the tasks that stopped since. A task that BPF stopped gets it in any state (the
   * stop may still be pending); another only if it is stopped now, for a SIGCONT is seen by a program
   * that has a handler for it; and never one that somebody had stopped before.
   */
  continueStopped(cgroup: Cgroup, procPath: string, sinceNs: bigint): number {
    let continued = 0;
    for (const task of this.#enforcer.stoppedTasks(cgroup)) {
      if (!task.byBpf && task.timeNs < sinceNs) continue;
      if (!task.byBpf && processStat(task.tgid, this.#procRoot)?.state !== 'T') continue;
      if (this.#continue(task.tgid, procPath)) continued += 1;
    }
    return continued;
  }

  #continue(tgid: number, procPath: string): boolean {
    let pidfd: number;
    try {
      pidfd = this.#native.pidfdOpen(tgid);
    } catch {
      return false; // it has ended
    }
    try {
      // Asked after the pidfd is open, so that the answer is about the process it holds.
      const path = cgroupPathOf(tgid, this.#procRoot);
      if (path !== procPath && !path?.startsWith(`${procPath}/`)) return false;
      this.#native.pidfdSendSignal(pidfd, constants.signals.SIGCONT);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ESRCH') return false;
      throw error;
    } finally {
      closeSync(pidfd);
    }
  }
}
