// SPDX-License-Identifier: Apache-2.0
import type { Level } from './queue.ts';
import type { AdmissionSettings } from './settings.ts';
import type { HostPressure } from './types.ts';

/**
 * How many lanes the turns of a level may hold, because a turn leads to tool calls, which need memory: all while the
 * host has memory to spare, fewer the harder it is pressed, and always one, so that they get on. Background turns
 * first, subagents when that is not enough, a user's never.
 */
export function admittedLanes(
  level: Level,
  lanes: number,
  host: HostPressure,
  settings: AdmissionSettings,
): number {
  if (level === 0) return lanes;
  const { pressure, poolShortCounts } = settings;
  const { from, full } = pressure[level - 1] as { from: number; full: number };
  // Where PSI is off it is not known; a pool that is short says enough by itself.
  const memory = Math.max(host.memory || 0, host.poolShort ? poolShortCounts : 0);
  const pressed = (memory - from) / (full - from);
  if (!(pressed > 0)) return lanes;
  return Math.max(1, Math.floor(lanes * (1 - pressed)));
}
