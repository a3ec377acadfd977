// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DecayedMean, DecayedSum } from '../../daemon/scheduler/decayed.ts';
import { type FairResource, jainIndex, SessionUsage } from '../../daemon/scheduler/fairness.ts';

const capacities: Readonly<Record<FairResource, number>> = {
  laneMs: 240_000,
  requests: 50,
  inputTokens: 30_000,
  outputTokens: Number.POSITIVE_INFINITY,
};
const capacity = (resource: FairResource) => capacities[resource];

const near = (value: number, wanted: number) =>
  assert.ok(Math.abs(value - wanted) < 1e-6, `${value}, not ${wanted}`);

describe('SessionUsage', () => {
  test('is what it used the largest part of, not the most of', () => {
    const many = new SessionUsage();
    many.add('requests', 25, 0);
    many.add('inputTokens', 3_000, 0);
    const large = new SessionUsage();
    large.add('requests', 1, 0);
    large.add('inputTokens', 9_000, 0);
    near(2 ** many.dominantLog(capacity), 0.5);
    near(2 ** large.dominantLog(capacity), 0.3);
  });

  test('what is not limited does not count, and nothing used is less than anything', () => {
    const usage = new SessionUsage();
    assert.equal(usage.dominantLog(capacity), Number.NEGATIVE_INFINITY);
    usage.add('outputTokens', 1e9, 0);
    assert.equal(usage.dominantLog(capacity), Number.NEGATIVE_INFINITY);
  });

  test('an idle session is not punished for long: half counts after a half-life', () => {
    const before = new SessionUsage();
    before.add('requests', 20, 0);
    const now = new SessionUsage();
    now.add('requests', 10, 1);
    near(before.dominantLog(capacity), now.dominantLog(capacity));
  });

  test('what was counted ahead is taken back', () => {
    const usage = new SessionUsage();
    usage.add('laneMs', 10_000, 3);
    usage.add('laneMs', -10_000, 3);
    assert.equal(usage.dominantLog(capacity), Number.NEGATIVE_INFINITY);
  });

  test('the order of two sessions stays as it is while neither uses anything', () => {
    const uses = fc.array(fc.tuple(fc.integer({ min: 1, max: 1_000 }), fc.integer({ min: 0, max: 20 })));
    fc.assert(
      fc.property(uses, fc.integer({ min: 0, max: 1_000_000 }), (list, start) => {
        const usage = new SessionUsage();
        const plain = new DecayedSum(1);
        let at = start;
        for (const [amount, later] of list) {
          at += later / 10;
          usage.add('requests', amount, at);
          plain.add(amount, at);
        }
        const log = usage.dominantLog(capacity);
        // The same sum, kept the plain way, at any later time.
        const wanted = Math.log2(plain.value(at + 3) / 50) + at + 3;
        if (list.length > 0) near(log, wanted);
      }),
    );
  });
});

test('DecayedSum counts half after each half-life', () => {
  const sum = new DecayedSum(1_000);
  sum.add(8, 0);
  assert.deepEqual([sum.value(0), sum.value(1_000), sum.value(3_000)], [8, 4, 1]);
  sum.add(1, 3_000);
  assert.equal(sum.value(3_000), 2);
});

describe('DecayedMean', () => {
  test('learns quickly at first, then slowly', () => {
    const mean = new DecayedMean(100, 0.1);
    mean.add(0);
    assert.equal(mean.value, 50);
    for (let n = 0; n < 200; n += 1) mean.add(10);
    assert.ok(Math.abs(mean.value - 10) < 1);
    mean.add(1_010);
    assert.ok(Math.abs(mean.value - 110) < 1);
  });

  test('knows how far values lie from it', () => {
    const mean = new DecayedMean(10, 0.01);
    for (let n = 0; n < 2_000; n += 1) mean.add(n % 2 === 0 ? 5 : 15);
    assert.ok(Math.abs(mean.upper - 15) < 0.5, `${mean.upper}`);
  });

  test('is taken up where it was saved', () => {
    const mean = new DecayedMean(100, 0.1);
    mean.restore(500);
    mean.add(0);
    assert.equal(mean.value, 450);
  });
});

test("Jain's index", () => {
  assert.deepEqual(
    [jainIndex([1, 1, 1, 1]), jainIndex([4, 0, 0, 0]), jainIndex([]), jainIndex([0, 0])],
    [1, 0.25, 1, 1],
  );
});
