// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nowMs } from '../../daemon/clock.ts';
import { AdmissionQueue } from '../../daemon/toolcall/admission-queue.ts';

test('nobody waits for longer than it may, whoever comes first', async (t) => {
  const queue = new AdmissionQueue();
  t.after(() => queue.close());
  const start = nowMs();
  queue.enter(() => false, { rank: 0, dueMs: Infinity }, start);
  const admitted: string[] = [];
  const waits = (name: string, rank: number, dueMs: number) =>
    new Promise<void>((resolve) => {
      const attempt = (now: number): boolean => {
        if (now < dueMs) return false;
        admitted.push(name);
        resolve();
        return true;
      };
      queue.enter(attempt, { rank, dueMs }, start);
    });
  await Promise.all([waits('subagent', 1, start + 300), waits('background', 2, start + 100)]);
  assert.deepEqual(admitted, ['background', 'subagent']);
  assert.equal(queue.length, 1);
});
