// SPDX-License-Identifier: Apache-2.0
import { blockedLocks } from '../../kernel/locks.ts';
import { cgroupPathOf } from '../../kernel/proc.ts';
import type { Call } from '../call.ts';

/** /proc/locks lists every lock of the host; it matters only to who is frozen, for some milliseconds. */
const LOCKS_MS = 100;

/** Calls in the freezer with a file lock for which somebody outside waits. */
export class Blockers {
  readonly #calls: () => Iterable<Call>;
  #found: ReadonlySet<Call> = new Set();
  #lookedAtMs = 0;

  constructor(calls: () => Iterable<Call>) {
    this.#calls = calls;
  }

  /** As the last look found it. */
  has(call: Call): boolean {
    return this.#found.has(call);
  }

  /** Looks for them, unless it has only just done so. */
  look(nowMs: number): void {
    if (nowMs - this.#lookedAtMs < LOCKS_MS) return;
    this.#lookedAtMs = nowMs;
    const frozen = [...this.#calls()].filter((call) => call.frozenSinceMs !== undefined);
    this.#found = frozen.length === 0 ? new Set() : blockersAmong(frozen);
  }
}

function blockersAmong(frozen: readonly Call[]): Set<Call> {
  const callOf = (pid: number): Call | undefined => {
    const path = cgroupPathOf(pid);
    return frozen.find((call) => path === call.procPath || path?.startsWith(`${call.procPath}/`));
  };
  const blockers = new Set<Call>();
  for (const { holder, waiter } of blockedLocks()) {
    const call = callOf(holder);
    // Who waits in a frozen call waits for other things first.
    if (call !== undefined && callOf(waiter) === undefined) blockers.add(call);
  }
  return blockers;
}
