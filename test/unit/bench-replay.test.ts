// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Step, summedPeakBytes } from '../bench/replay/sum.ts';

const sessions = fc.array(
  fc.array(fc.record({ waitMs: fc.nat(5), bytes: fc.nat(100) }), { maxLength: 8 }).map((waits): Step[] => {
    let atMs = 0;
    return waits.map(({ waitMs, bytes }) => {
      atMs += waitMs;
      return { atMs, bytes };
    });
  }),
  { maxLength: 5 },
);

test('the peak of a sum is what sessions hold together at the worst moment', () => {
  const a = [
    { atMs: 0, bytes: 10 },
    { atMs: 5, bytes: 50 },
    { atMs: 6, bytes: 10 },
    { atMs: 20, bytes: 5 },
  ];
  assert.equal(summedPeakBytes([]), 0);
  assert.equal(summedPeakBytes([a]), 50);
  assert.equal(summedPeakBytes([a, a]), 100);
  // Apart, the burst of one meets what the other has beside it; after its end it has nothing.
  assert.equal(summedPeakBytes([a, a.map(({ atMs, bytes }) => ({ atMs: atMs + 3, bytes }))]), 60);
  assert.equal(summedPeakBytes([a, a.map(({ atMs, bytes }) => ({ atMs: atMs + 30, bytes }))]), 50);
});

test('the peak of a sum is between the highest peak and the sum of all', () => {
  fc.assert(
    fc.property(sessions, (some) => {
      const peaks = some.map((steps) => Math.max(0, ...steps.map(({ bytes }) => bytes)));
      const peak = summedPeakBytes(some);
      assert.ok(peak >= Math.max(0, ...peaks) && peak <= peaks.reduce((sum, one) => sum + one, 0));
    }),
  );
});
