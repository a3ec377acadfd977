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
 * Whether a new call may start. It waits only if the pool cannot hold its memory.high *and* somebody waits
 * for memory already: a full pool in which nobody does is put to good use, and most calls need far less
 * than they may have. The wait is bounded; `short` tells that the call starts in spite of it.
 * @param needBytes the call's memory.high; Infinity counts as whatever the pool has.
 * @param host `memorySomePercent` is `some avg10` of its memory pressure; `poolShort` that calls are frozen
 *   to make room for others, and that this one would come behind them.
 */
export function decideAdmission(
  call: { readonly needBytes: number; readonly waitedMs: number },
  pool: Pool,
  host: { readonly memorySomePercent: number; readonly poolShort: boolean },
  nowMs: number,
  settings: AdmissionSettings,
): Admission {
  const fits = call.needBytes === Infinity ? pool.roomBytes > 0 : pool.roomBytes >= call.needBytes;
  const pressed = host.poolShort || host.memorySomePercent >= settings.pressurePercent;
  if (fits || !pressed) return { action: 'admit', short: false };
  const leftMs = settings.waitMs - call.waitedMs;
  return leftMs > 0 ? { action: 'wait', untilMs: nowMs + leftMs } : { action: 'admit', short: true };
}
