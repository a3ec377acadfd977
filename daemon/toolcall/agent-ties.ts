// SPDX-License-Identifier: Apache-2.0
import type { Log } from '../log.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { Call } from './call.ts';

/** Ties live calls whose agent is known to it: without it they do not keep their session alive. */
export class AgentTies {
  readonly #sessions: Pick<SessionRegistry, 'tieCall'>;
  readonly #log: Log;
  /** What unties a call. */
  readonly #ties = new Map<Call, () => void>();

  constructor(sessions: Pick<SessionRegistry, 'tieCall'>, log: Log) {
    this.#sessions = sessions;
    this.#log = log;
  }

  tie(call: Call): void {
    if (call.phase !== 'live' || call.agentProcess === null) return;
    try {
      this.#ties.set(call, this.#sessions.tieCall(call.session, call.agentProcess));
    } catch (error) {
      this.#log.error({ err: error, call: call.id }, 'agent of call not watched');
    }
  }

  untie(call: Call): void {
    this.#ties.get(call)?.();
    this.#ties.delete(call);
  }

  close(): void {
    for (const call of [...this.#ties.keys()]) this.untie(call);
  }
}
