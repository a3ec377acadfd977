// SPDX-License-Identifier: Apache-2.0
import { CALL_CLASSES, type CallClass } from '../toolcall/intent.ts';

/** Who keeps the sessions of a run within their common limit. `none`: only the kernel's OOM killer. */
export const ARMS = ['none', 'static', 'high', 'freeze', 'agentrm'] as const;
export type Arm = (typeof ARMS)[number];

/** What an arm does to one session's cgroup before anything runs. `Infinity` is the kernel's `max`. */
export interface SessionLimits {
  readonly maxBytes: number;
  readonly highBytes: number;
  /** Frozen until every session of the highest class has ended. */
  readonly waits: boolean;
}

/** The first session is the one that counts, unless somebody says otherwise. */
export function defaultClasses(count: number): CallClass[] {
  return Array.from({ length: count }, (_, index) => (index === 0 ? 'interactive' : 'background'));
}

/** Whether each session is of the highest class that takes part. */
export function areHigh(classes: readonly CallClass[]): boolean[] {
  const best = Math.min(...classes.map((one) => CALL_CLASSES.indexOf(one)));
  return classes.map((one) => CALL_CLASSES.indexOf(one) === best);
}

/**
 * The limits of each session, within a common memory.max of `limitBytes`:
 * - `static`: an equal share as memory.max;
 * - `high`: an equal share as memory.high for all but the highest class, which is what can be set without knowing
 *   beforehand what each of them will need. AgentCgroup's experiments set 400 MiB by hand, just under the peaks of
 *   the traces that were going to be replayed (406 MiB); `lowHighBytes` does that.
 * - `freeze`: all but the highest class stand still until that is done.
 */
export function limitsOf(
  arm: Exclude<Arm, 'agentrm'>,
  classes: readonly CallClass[],
  limitBytes: number,
  lowHighBytes?: number,
): SessionLimits[] {
  const share = Math.floor(limitBytes / classes.length);
  return areHigh(classes).map((high) => ({
    maxBytes: arm === 'static' ? share : Number.POSITIVE_INFINITY,
    highBytes: arm === 'high' && !high ? (lowHighBytes ?? share) : Number.POSITIVE_INFINITY,
    waits: arm === 'freeze' && !high,
  }));
}
