// SPDX-License-Identifier: Apache-2.0
import type { Config } from '../config/schema.ts';
import { errnoOf, messageOf } from '../errors.ts';
import type { PeerCred } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import { type AnswerTo, refusal } from './answer.ts';
import type { Emit } from './call-events.ts';

/** Why a command got no cgroup of its own; each has a counter. */
export type UnmanagedReason = 'nested' | 'outside' | 'degraded' | 'limit' | 'error' | 'gone';

export interface UnmanagedDeps {
  readonly config: () => Config;
  readonly onUnmanaged: (reason: UnmanagedReason) => void;
  readonly log: Log;
  readonly emit: Emit;
}

/** Answers those whose commands run without a cgroup of their own, or with `wrapper.failClosed` not at all. */
export class Unmanaged {
  readonly #deps: UnmanagedDeps;

  constructor(deps: UnmanagedDeps) {
    this.#deps = deps;
  }

  /** There is nothing that the agent should know. */
  silently(reason: UnmanagedReason, answer: AnswerTo): void {
    this.#without(reason, [], answer);
  }

  /** This host cannot enforce anything; `agentrm status` says why. */
  degraded(notes: readonly string[], answer: AnswerTo): void {
    const { enforcement } = this.#deps.config();
    if (this.#failClosed && enforcement.mode !== 'off')
      this.#refuse('degraded', 'nothing is enforced here', notes, answer);
    else this.#without('degraded', notes, answer);
  }

  /** The command runs all the same, if it may, and says why without limits. */
  because(
    error: unknown,
    peer: PeerCred,
    notes: readonly string[],
    answer: AnswerTo,
    reason: UnmanagedReason = errnoOf(error) === 'ESRCH' ? 'gone' : 'error',
  ): void {
    this.#deps.log.error({ err: error, uid: peer.uid }, 'call not placed');
    this.#deps.emit('unmanaged', { uid: peer.uid }, { error: messageOf(error) });
    if (this.#failClosed) {
      this.#refuse(reason, messageOf(error), notes, answer);
      return;
    }
    this.#without(reason, [...notes, `agentrm: running unmanaged: ${messageOf(error)}`], answer);
  }

  get #failClosed(): boolean {
    return this.#deps.config().wrapper.failClosed;
  }

  #without(reason: UnmanagedReason, notes: readonly string[], answer: AnswerTo): void {
    this.#deps.onUnmanaged(reason);
    answer({ kind: 'none', notes });
  }

  #refuse(reason: UnmanagedReason, why: string, notes: readonly string[], answer: AnswerTo): void {
    this.#deps.onUnmanaged(reason);
    answer(refusal([...notes, `agentrm: ${why}, not run (fail-closed)`]));
  }
}
