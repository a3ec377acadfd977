// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { errnoOf, messageOf } from '../errors.ts';
import { isHeld } from '../kernel/held.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import { Bringing } from './bringing.ts';
import type { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import type { CallRoots } from './call-roots.ts';
import type { EscapeReport } from './escape-report.ts';
import { LateTrees } from './late-trees.ts';
import type { UnmanagedReason } from './unmanaged.ts';

export interface PlacingDeps {
  readonly native: Native;
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
  readonly #bringing: Bringing;
  readonly #late: LateTrees;
  readonly #tokens = new Map<string, Call>();

  constructor(deps: PlacingDeps) {
    this.#deps = deps;
    this.#bringing = new Bringing(deps);
    this.#late = new LateTrees({ ...deps, bringing: this.#bringing });
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
      // Waits for an RCU grace period when it comes alone: 12 to 19 ms at the median, 7.2 and 6.12.
      await this.#bringing.bring(peer.pid, call, () => isHeld(this.#deps.native, peer.pidfd));
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
    this.#late
      .move(call)
      .catch((error: unknown) => {
        this.#deps.log.error({ err: error, call: call.id }, 'command not moved');
        this.#deps.emit('unmanaged', about(call), { error: messageOf(error) });
      })
      .finally(() => this.#deps.escapes.add(call));
  }

  close(): void {
    this.#tokens.clear();
    this.#late.close();
  }
}
