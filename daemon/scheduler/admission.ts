// SPDX-License-Identifier: Apache-2.0
import type { AdmissionSettings } from './settings.ts';
import type { HostPressure } from './types.ts';

/**
 * How many lanes background turns may hold: all while the host has memory to spare, fewer the harder it is
 * pressed, and always one, so that they get on. A turn leads to tool calls, which need memory.
 */
export function backgroundLanes(lanes: number, host: HostPressure, settings: AdmissionSettings): number {
  const { pressureFrom, pressureFull } = settings;
  const pressed = host.poolShort ? 1 : (host.memory - pressureFrom) / (pressureFull - pressureFrom);
  if (!(pressed > 0)) return lanes;
  return Math.max(1, Math.floor(lanes * (1 - pressed)));
}
