// SPDX-License-Identifier: Apache-2.0
import { DeadlineQueue } from './deadline-queue.ts';
import { FairShareQueue } from './fair-share-queue.ts';
import type { DisciplineMaker } from './queue.ts';

/** The orders that a queue can have; see docs/scheduler.md. */
export const QUEUE_POLICIES = ['priority', 'deadline', 'fair-share'] as const;
export type QueuePolicy = (typeof QUEUE_POLICIES)[number];

/** @returns undefined for the scheduler's own order, by priority. */
export function disciplineOf(policy: QueuePolicy): DisciplineMaker | undefined {
  return {
    priority: undefined,
    deadline: () => new DeadlineQueue(),
    'fair-share': (rankOf: (session: string) => number) => new FairShareQueue(rankOf),
  }[policy];
}
