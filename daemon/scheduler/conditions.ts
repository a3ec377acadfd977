// SPDX-License-Identifier: Apache-2.0
import type { Clock } from './clock.ts';
import type { MutableCounters } from './counters.ts';
import type { SchedulerEvents } from './events.ts';
import type { SchedulerSettings } from './settings.ts';
import type { HostPressure } from './types.ts';

/** What all parts of a scheduler share. The parts count in `counters`; the rest only the scheduler itself changes. */
export interface Conditions {
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly events: SchedulerEvents;
  readonly counters: MutableCounters;
  /** As they are in force. */
  settings: SchedulerSettings;
  pressure: HostPressure;
  /** Nothing waits any more, and nothing will. */
  closed: boolean;
}
