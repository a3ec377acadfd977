// SPDX-License-Identifier: Apache-2.0
import { isSameProcess, type ProcessId } from '../kernel/proc.ts';
import type { Call } from './call.ts';

/** What there is to know of a call that holds one of the slots, of which the kernel's part has 4096 for all. */
export type SlotHolder = Pick<Call, 'phase' | 'wrapper'> & { readonly session: { readonly uid: number } };

/**
 * Why a wrapper may not have a call now: one process must not use up the slots, nor one user by its many.
 * @param perUid how many a user may have at a time; root may have them all.
 * @returns undefined if it may.
 */
export function whyNoSlot(
  calls: Iterable<SlotHolder>,
  wrapper: ProcessId,
  uid: number,
  perUid: number,
): string | undefined {
  let held = 0;
  for (const call of calls) {
    if (call.session.uid !== uid) continue;
    held += 1;
    // What it has left behind may stay: its command has ended.
    if (call.phase === 'lingering' || call.phase === 'gone') continue;
    if (isSameProcess(call.wrapper, wrapper)) return 'its wrapper has a call already';
  }
  if (uid === 0 || held < perUid) return undefined;
  return `uid ${uid} has ${held} calls, as many as it may have at a time (admission.perUid)`;
}
