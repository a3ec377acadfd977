// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  firstPatience,
  nextPatience,
  type Patience,
  takenOfLate,
  usualBytes,
} from '../../daemon/policy/patience.ts';

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

test('what it usually holds: a slow leak rises above it, a burst is forgotten, what was given back is gone', () => {
  const MIB = 2 ** 20;
  const risesBy = (heldAt: (ms: number) => number, ms: number, tickMs = 10): number => {
    let usual = heldAt(0);
    for (let at = tickMs; at <= ms; at += tickMs) usual = usualBytes(usual, heldAt(at), tickMs);
    return (heldAt(ms) - usual) / MIB;
  };
  const leak = (mibPerSecond: number) => (ms: number) => 100 * MIB + (mibPerSecond * MIB * ms) / 1000;
  assert.ok(risesBy(leak(1), 1000) > 0.75, 'a second of it is seen');
  for (const tickMs of [10, 100, 1000]) {
    const risen = risesBy(leak(1), 20_000, tickMs);
    assert.ok(risen > 1.4 && risen < 2.1, `${risen} MiB with a look each ${tickMs} ms`);
  }
  assert.ok(risesBy(leak(0.25), 20_000) < 1, 'so slow that it does not matter');
  const burst = (ms: number) => (ms < 100 ? 0 : 500 * MIB);
  assert.ok(Math.abs(risesBy(burst, 100) - 4) < 0.1);
  assert.ok(risesBy(burst, 2500) > 1 && risesBy(burst, 3500) < 1);
  // 64 pages are charged ahead at a time.
  const batches = (ms: number) => 100 * MIB + (ms % 400 < 100 ? MIB / 4 : 0);
  for (let ms = 5000; ms < 6000; ms += 10) assert.ok(risesBy(batches, ms) < 0.5);
  assert.equal(usualBytes(100 * MIB, 50 * MIB, 10), 50 * MIB);
});
