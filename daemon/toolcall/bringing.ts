// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import { attach } from '../kernel/attach.ts';
import { Cgroup } from '../kernel/cgroup.ts';
import { mayMove } from '../kernel/delegation.ts';
import { files } from '../kernel/files.ts';
import { goneError, isHeld } from '../kernel/held.ts';
import type { Native } from '../kernel/native.ts';
import { cgroupPathOf, processStat } from '../kernel/proc.ts';
import type { Log } from '../log.ts';
import { type Call, isWithin } from './call.ts';

export interface BringingDeps {
  readonly native: Native;
  readonly cooperative: boolean;
  readonly log: Log;
}

/** Moves one process into the cgroup of a call, and no other that gets its number. */
export class Bringing {
  readonly #deps: BringingDeps;

  constructor(deps: BringingDeps) {
    this.#deps = deps;
  }

  /**
   * @param isMeant whether the number is still that of the process which is meant.
   * @throws Error why it was not moved; ESRCH if it has ended.
   */
  async bring(pid: number, call: Call, isMeant: () => boolean): Promise<void> {
    const { native } = this.#deps;
    // Of our own: a peer's is closed with its connection.
    const pidfd = native.pidfdOpen(pid);
    try {
      // Asked with the pidfd in hand, which holds that very process then.
      if (!isMeant()) throw goneError(`process ${pid}`);
      await this.#move(pid, call);
      // The write waits for the kernel, so who has the number can have changed before it; not if it has not even now.
      if (isHeld(native, pidfd)) return;
      await this.#putBack(pid, call);
      throw goneError(`process ${pid}`);
    } finally {
      closeSync(pidfd);
    }
  }

  async #move(pid: number, call: Call): Promise<void> {
    const { root } = call.sessionCgroup;
    const from = this.#deps.cooperative ? cgroupPathOf(pid) : undefined;
    if (from !== undefined && !mayMove(root.mount, root.procPath, from, call.session.uid))
      await attach(pid, call.procPath);
    else await call.cgroup.writeOffThread(files.procs, String(pid));
  }

  /**
   * Moves out again who got the number of a process that ended while it was moved: to where its parent is, as that is
   * where it was forked. What was forked in the call itself stays.
   */
  async #putBack(pid: number, call: Call): Promise<void> {
    const { native, log } = this.#deps;
    const owner = processStat(pid);
    const at = cgroupPathOf(pid);
    const home = owner === undefined ? undefined : cgroupPathOf(owner.ppid);
    if (at === undefined || home === undefined || !isWithin(call, at) || isWithin(call, home)) return;
    log.warn(
      { call: call.id, pid, cgroup: home },
      'a process got the number of one that was moved; put back',
    );
    const cgroup = Cgroup.open(native, `${call.sessionCgroup.root.mount}${home}`);
    try {
      await cgroup.writeOffThread(files.procs, String(pid));
    } finally {
      cgroup.close();
    }
  }
}
