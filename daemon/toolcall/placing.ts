// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { errnoOf, messageOf } from '../errors.ts';
import { attach } from '../kernel/attach.ts';
import { mayMove } from '../kernel/delegation.ts';
import { files } from '../kernel/files.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import { cgroupPathOf, descendants, isAlive } from '../kernel/proc.ts';
import type { Log } from '../log.ts';
import type { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import type { CallRoots } from './call-roots.ts';
import type { EscapeReport } from './escape-report.ts';
import type { UnmanagedReason } from './unmanaged.ts';

export interface PlacingDeps {
  readonly native: Pick<Native, 'pidfdSendSignal'>;
  readonly cooperative: boolean;
  readonly roots: CallRoots;
  readonly escapes: EscapeReport;
  readonly onUnmanaged: (reason: UnmanagedReason) => void;
  readonly log: Log;
  readonly emit: Emit;
}

/** Moves processes that could not be forked there into the cgroups of their calls. */
export class Placing {
  readonly #deps: PlacingDeps;
  readonly #tokens = new Map<string, Call>();

  constructor(deps: PlacingDeps) {
    this.#deps = deps;
  }

  /** @returns with what a process may ask to be placed in this call, once. */
  issueToken(call: Call): string {
    const token = randomBytes(16).toString('hex');
    call.token = token;
    this.#tokens.set(token, call);
    return token;
  }

  forgetToken(call: Call): void {
    if (call.token !== undefined) this.#tokens.delete(call.token);
    call.token = undefined;
  }

  /**
   * The child of a wrapper that cannot fork into a cgroup asks to be moved into its own.
   * @throws Error why it was not.
   */
  async place(peer: PeerCred, token: string): Promise<void> {
    const call = this.#tokens.get(token);
    if (call === undefined || call.phase !== 'live') throw new Error('no such call');
    if (peer.uid !== call.session.uid) throw new Error('not your call');
    this.forgetToken(call);
    if (peer.pidfd < 0) throw new Error('already gone');
    try {
      // Still the process that connected, and not one that got its pid.
      this.#deps.native.pidfdSendSignal(peer.pidfd, 0);
      // Waits for an RCU grace period when it comes alone: 12 to 19 ms at the median, 7.2 and 6.12.
      await this.#bring(peer.pid, call);
      this.#deps.escapes.add(call);
    } catch (error) {
      this.#deps.onUnmanaged(errnoOf(error) === 'ESRCH' ? 'gone' : 'error');
      this.#deps.log.error({ err: error, call: call.id }, 'process not placed');
      this.#deps.emit('unmanaged', about(call), { error: messageOf(error) });
      throw error;
    }
  }

  /** The wrapper started its command before the answer came: its whole tree is moved. */
  placeLate(call: Call): void {
    this.forgetToken(call);
    // Until it is there, what is not has not left.
    this.#deps.escapes.remove(call);
    this.#moveTree(call)
      .catch((error: unknown) => {
        this.#deps.log.error({ err: error, call: call.id }, 'command not moved');
        this.#deps.emit('unmanaged', about(call), { error: messageOf(error) });
      })
      .finally(() => this.#deps.escapes.add(call));
  }

  close(): void {
    this.#tokens.clear();
  }

  async #moveTree(call: Call): Promise<void> {
    // Twice: what is forked while the first pass moves its parents is found by the second.
    for (let pass = 0; pass < 2; pass += 1) {
      if (!isAlive(call.wrapper)) return;
      for (const pid of descendants(call.wrapper.pid)) {
        try {
          // A call of its own, of a wrapper below, stays one.
          if (call.phase !== 'live' || this.#deps.roots.isManaged(pid)) continue;
          await this.#bring(pid, call);
        } catch (error) {
          if (errnoOf(error) !== 'ESRCH')
            this.#deps.log.error({ err: error, call: call.id, pid }, 'process not moved');
        }
      }
    }
  }

  /** Moves a process into the cgroup of a call. */
  async #bring(pid: number, call: Call): Promise<void> {
    const { root } = call.sessionCgroup;
    const from = this.#deps.cooperative ? cgroupPathOf(pid) : undefined;
    if (from !== undefined && !mayMove(root.mount, root.procPath, from, call.session.uid))
      await attach(pid, call.procPath);
    else await call.cgroup.writeOffThread(files.procs, String(pid));
  }
}
