// SPDX-License-Identifier: Apache-2.0
import type { Pool } from './pool.ts';

export interface AdmissionSettings {
  /** The longest that a call waits before it starts. */
  readonly waitMs: number;
  /** The share of time in which some task waits for memory (PSI) that counts as pressure. */
  readonly pressurePercent: number;
}

export type Admission =
  | { readonly action: 'admit'; readonly short: boolean }
  | { readonly action: 'wait'; readonly untilMs: number };

/**
 * Whether a new call may start. It waits only if the pool cannot hold its memory.high *and* the host is
 * under pressure: a full pool in which nobody waits for memory is put to good use, and most calls need
 * far less than they may have. The wait is bounded; `short` tells that the call starts in spite of it.
 * @param needBytes the call's memory.high; Infinity counts as whatever the pool has.
 * @param memorySomePercent `some avg10` of the host's memory pressure.
 */
export function decideAdmission(
  call: { readonly needBytes: number; readonly waitedMs: number },
  pool: Pool,
  host: { readonly memorySomePercent: number },
  nowMs: number,
  settings: AdmissionSettings,
): Admission {
  const fits = call.needBytes === Infinity ? pool.roomBytes > 0 : pool.roomBytes >= call.needBytes;
  if (fits || host.memorySomePercent < settings.pressurePercent) return { action: 'admit', short: false };
  const leftMs = settings.waitMs - call.waitedMs;
  return leftMs > 0 ? { action: 'wait', untilMs: nowMs + leftMs } : { action: 'admit', short: true };
}
