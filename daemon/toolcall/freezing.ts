// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import { files } from '../kernel/files.ts';
import type { Freezer } from '../kernel/freezer.ts';
import type { Native } from '../kernel/native.ts';
import type { Call } from './call.ts';

/**
 * After a thaw a program may still stop itself, because it saw its child stopped (su, runuser, nsenter
 * do). It does so as soon as it runs, so a few ticks of looking are enough.
 */
const AFTERCARE_MS = 2000;

export interface FreezingDeps {
  readonly native: Pick<Native, 'monotonicNs'>;
  readonly freezer: Freezer;
  readonly emit: (kind: string, call: Call, detail?: object) => void;
}

/** Freezes calls and thaws them, and looks after them for a while. */
export class Freezing {
  readonly #deps: FreezingDeps;
  /** Calls that were thawed, and until when they are looked after. */
  readonly #aftercare = new Map<Call, number>();

  constructor(deps: FreezingDeps) {
    this.#deps = deps;
  }

  /** @param stoppedAtNs when BPF stopped its first task; if it has not, what stands still by now is nobody's business. */
  freeze(
    call: Call,
    why: 'line' | 'pool',
    reason: string,
    usageBytes: number,
    stoppedAtNs = this.#deps.native.monotonicNs(),
  ): void {
    // After its last thaw something may have stopped itself that no look has found yet.
    const sinceNs = this.#aftercare.has(call) ? min(call.stoppedAtNs, stoppedAtNs) : stoppedAtNs;
    this.#deps.freezer.freeze(call.cgroup, call.procPath, sinceNs);
    call.stoppedAtNs = stoppedAtNs;
    const now = nowMs();
    call.frozenSinceMs = now;
    call.frozenFor = why;
    if (why === 'pool') call.madeRoom = true;
    call.lastPressedMs = now;
    call.record({ action: 'freeze', reason, usageBytes }, now);
    this.#deps.emit('freeze', call, { reason, usageBytes });
  }

  /** BPF had stopped a task before the daemon froze the call, and the news of it came later. */
  stoppedBefore(call: Call, stoppedAtNs: bigint): void {
    call.stoppedAtNs = min(call.stoppedAtNs, stoppedAtNs);
  }

  /** What BPF stopped for an earlier daemon, which may not even have heard of it, goes on. */
  letGoOn(call: Call, stoppedAtNs: bigint): void {
    call.stoppedAtNs = stoppedAtNs;
    this.#aftercare.set(call, nowMs() + AFTERCARE_MS);
  }

  thaw(call: Call, reason: string): void {
    this.#deps.freezer.thaw(call.cgroup, call.procPath, call.stoppedAtNs);
    const now = nowMs();
    call.countFreeze(now);
    call.throttledSinceMs = undefined;
    this.#aftercare.set(call, now + AFTERCARE_MS);
    this.#deps.emit('thaw', call, { reason });
  }

  /** Whether a call that is to be frozen is not: the guard thaws all while the daemon hangs, and root may. */
  isUndone(call: Call): boolean {
    return call.frozenSinceMs !== undefined && call.cgroup.readNumber(files.freeze) === 0;
  }

  /**
   * Continues what has stopped itself after a thaw.
   * @param guarded for each call, whose errors are its own.
   */
  lookAfter(now: number, guarded: (call: Call, action: () => void) => void): void {
    const { freezer } = this.#deps;
    for (const [call, untilMs] of this.#aftercare) {
      if (call.frozenSinceMs === undefined) {
        guarded(call, () => freezer.continueStopped(call.cgroup, call.procPath, call.stoppedAtNs));
      }
      if (now > untilMs) this.#aftercare.delete(call);
    }
  }

  forget(call: Call): void {
    this.#aftercare.delete(call);
  }
}

function min(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}
