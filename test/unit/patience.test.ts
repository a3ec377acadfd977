// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { firstPatience, nextPatience, type Patience, takenOfLate } from '../../daemon/policy/patience.ts';

test('patience doubles with each try in vain, up to a bound, and begins anew after one that was not', () => {
  let patience: Patience = firstPatience(1000, 100);
  assert.deepEqual([patience.ms, patience.stuckSinceMs], [100, 1000]);
  const seen: number[] = [];
  for (let now = 1100; seen.length < 6; now += 3000) {
    patience = nextPatience({ ...patience, wentOnAtMs: now }, now + 249, 100);
    seen.push(patience.ms);
  }
  assert.deepEqual(seen, [200, 400, 800, 1600, 2000, 2000]);
  assert.equal(patience.stuckSinceMs, 1000);
  assert.deepEqual(
    nextPatience({ ...patience, wentOnAtMs: 50_000 }, 50_250, 100),
    firstPatience(50_250, 100),
  );
  // Whoever let it go on did not say so here.
  assert.deepEqual(nextPatience(patience, 60_000, 100), firstPatience(60_000, 100));
  assert.equal(nextPatience({ ...patience, wentOnAtMs: 70_000 }, 70_010, 5000).ms, 5000);
});

test('what was taken fades, and what is given back takes nothing from it', () => {
  assert.equal(takenOfLate(0, 100, 10), 100);
  assert.ok(Math.abs(takenOfLate(100, 0, 250) - 100 / Math.E) < 1e-9);
  assert.equal(takenOfLate(100, -50, 0), 100);
  // In small steps as in one.
  let taken = 1000;
  for (let step = 0; step < 25; step += 1) taken = takenOfLate(taken, 0, 10);
  assert.ok(Math.abs(taken - takenOfLate(1000, 0, 250)) < 1e-9);
});
