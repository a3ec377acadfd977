// SPDX-License-Identifier: Apache-2.0
// What looks like a hang and is none, and what is one, with the timers as they are shipped: all at the same time, in
// real minutes. What is seen is the wire on both sides: whether the client has its answer, and when the model's
// connection was closed.
import { setTimeout as delay } from 'node:timers/promises';
import type { Core } from './core.ts';
import { type HealthyResult, healthyTurns } from './healthy.ts';
import { type HungResult, hungTurns } from './hung.ts';
import type { Models } from './model.ts';

/** Storms begin in the same moment, and take what the machine has: a timer's precision is another matter. */
const START_MS = 5_000;

export interface ReaperResults {
  readonly healthy: readonly HealthyResult[];
  readonly hung: readonly HungResult[];
  /** By the core's own counters, of whatever else it served in these minutes too: turns, and runs. */
  readonly reaped: number;
  readonly abandoned: number;
}

/** @param copies turns of each kind */
export async function reaping(models: Models, core: Core, copies: number): Promise<ReaperResults> {
  await delay(START_MS);
  const context = { models, core, copies };
  const [healthy, hung] = await Promise.all([healthyTurns(context), hungTurns(context)]);
  const reaped = await core.counted('agentrm_scheduler_reaped_total');
  return { healthy, hung, reaped, abandoned: await core.counted('agentrm_scheduler_abandoned_total') };
}
