// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import { files } from '../kernel/files.ts';
import type { Lines } from '../policy/lines.ts';
import type { Call } from './call.ts';
import type { CallEnforcer } from './call-enforcer.ts';
import { cgroupNumber } from './limit-files.ts';
import { saveCall } from './saved-state.ts';

export interface LendingDeps {
  readonly enforcer: CallEnforcer;
  readonly thaw: (call: Call, reason: string) => void;
  /** Whether a call is still held to its limits. */
  readonly has: (call: Call) => boolean;
  readonly emit: (kind: string, call: Call, detail?: object) => void;
  readonly onError: (call: Call, error: unknown) => void;
}

/** Moves the lines of calls up and down again, in an order in which none of them hurts on the way. */
export class Lending {
  readonly #deps: LendingDeps;

  constructor(deps: LendingDeps) {
    this.#deps = deps;
  }

  /** In this order nothing can run into an old limit: max, freeze line, high, then thaw. */
  lend(call: Call, lines: Lines, reason: string): void {
    const { enforcer, thaw, emit } = this.#deps;
    const usageBytes = enforcer.usageBytes(call);
    if (lines.memoryMaxBytes !== call.lines.memoryMaxBytes) {
      call.cgroup.write(files.memoryMax, cgroupNumber(lines.memoryMaxBytes));
    }
    call.lines = lines;
    call.cycle += 1;
    enforcer.enforce(call);
    call.cgroup.write(files.memoryHigh, cgroupNumber(lines.memoryHighBytes));
    if (call.frozenSinceMs !== undefined) thaw(call, 'lent');
    call.record({ action: 'lend', reason, usageBytes, highBytes: lines.memoryHighBytes }, nowMs());
    emit('lend', call, { reason, usageBytes, highBytes: lines.memoryHighBytes });
    saveCall(call);
  }

  /**
   * Lowering goes the other way: high first, in the thread pool because the writer reclaims if the call grows meanwhile;
   * max last, which is far above the usage then.
   * @param usageBytes when it was decided, at `now`.
   */
  giveBack(call: Call, lines: Lines, usageBytes: number, now: number): void {
    const { enforcer, has, emit, onError } = this.#deps;
    call.givingBack = true;
    const before = call.lines;
    call.cgroup
      .writeOffThread(files.memoryHigh, cgroupNumber(lines.memoryHighBytes))
      .then(() => {
        if (!has(call)) return;
        // It has been frozen or lent to meanwhile: what holds now may have been written before this was.
        if (call.lines !== before || call.frozenSinceMs !== undefined) {
          call.cgroup.write(files.memoryHigh, cgroupNumber(call.lines.memoryHighBytes));
          return;
        }
        call.lines = { ...before, memoryHighBytes: lines.memoryHighBytes };
        if (enforcer.usageBytes(call) > lines.freezeLineBytes) return;
        call.lines = { ...call.lines, freezeLineBytes: lines.freezeLineBytes };
        enforcer.enforce(call);
        if (lines.memoryMaxBytes < before.memoryMaxBytes) {
          call.cgroup.write(files.memoryMax, cgroupNumber(lines.memoryMaxBytes));
          call.lines = { ...call.lines, memoryMaxBytes: lines.memoryMaxBytes };
        }
        call.record(
          { action: 'give-back', reason: 'burst over', usageBytes, highBytes: lines.memoryHighBytes },
          now,
        );
        emit('give-back', call, { usageBytes, highBytes: lines.memoryHighBytes });
        saveCall(call);
      })
      .catch((error: unknown) => onError(call, error))
      .finally(() => {
        call.givingBack = false;
      });
  }
}
