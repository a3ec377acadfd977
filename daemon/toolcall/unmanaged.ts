// SPDX-License-Identifier: Apache-2.0
import { errnoOf, messageOf } from '../errors.ts';
import type { PeerCred } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import type { AnswerTo } from './answer.ts';
import type { Emit } from './call-events.ts';

/** Why a command ran without a cgroup of its own; each has a counter. */
export type UnmanagedReason = 'nested' | 'outside' | 'degraded' | 'error' | 'gone';

export interface UnmanagedDeps {
  readonly onUnmanaged: (reason: UnmanagedReason) => void;
  readonly log: Log;
  readonly emit: Emit;
}

/** Answers those whose commands run without a cgroup of their own. */
export class Unmanaged {
  readonly #deps: UnmanagedDeps;

  constructor(deps: UnmanagedDeps) {
    this.#deps = deps;
  }

  /** There is nothing that the agent should know. */
  silently(reason: UnmanagedReason, answer: AnswerTo): void {
    this.#deps.onUnmanaged(reason);
    answer({ kind: 'none', notes: [] });
  }

  /** The command runs all the same, and says why without limits. */
  because(
    error: unknown,
    peer: PeerCred,
    notes: readonly string[],
    answer: AnswerTo,
    reason: UnmanagedReason = errnoOf(error) === 'ESRCH' ? 'gone' : 'error',
  ): void {
    this.#deps.onUnmanaged(reason);
    this.#deps.log.error({ err: error, uid: peer.uid }, 'call not placed');
    this.#deps.emit('unmanaged', { uid: peer.uid }, { error: messageOf(error) });
    answer({ kind: 'none', notes: [...notes, `agentrm: running unmanaged: ${messageOf(error)}`] });
  }
}
