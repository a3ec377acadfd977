// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { interval, median, quantile, summary } from '../bench/stats.ts';

const values = fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 50 });

describe('statistics of benchmarks', () => {
  it('knows quantiles whatever the order', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 3]), 2.5);
    assert.equal(quantile([10, 0], 0.99), 9.9);
    assert.equal(quantile([5], 0.99), 5);
    assert.ok(Number.isNaN(median([])));
  });

  it('has quantiles between the least and the greatest value, rising with the share', () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (list, share) => {
        const at = quantile(list, share);
        assert.ok(at >= Math.min(...list) && at <= Math.max(...list));
        assert.ok(at <= quantile(list, Math.min(1, share + 0.1)));
      }),
    );
  });

  it('gives an interval that holds the median, is narrower with more values, and always the same', () => {
    const spread = (count: number) => Array.from({ length: count }, (_, i) => (i * 37) % 101);
    const width = (count: number) => {
      const [low, high] = interval(spread(count), median);
      assert.ok(low <= median(spread(count)) && median(spread(count)) <= high);
      return high - low;
    };
    assert.ok(width(404) < width(30));
    assert.deepEqual(interval(spread(30), median), interval(spread(30), median));
    assert.deepEqual(interval([7, 7, 7], median), [7, 7]);
  });

  it('covers the true median about as often as it says', () => {
    let seed = 7;
    const uniform = () => {
      seed = Math.imul(seed, 48271) >>> 1;
      return seed / 2 ** 31;
    };
    let covered = 0;
    for (let i = 0; i < 100; i += 1) {
      const [low, high] = interval(Array.from({ length: 40 }, uniform), median);
      if (low <= 0.5 && 0.5 <= high) covered += 1;
    }
    assert.ok(covered >= 85, `${covered} of 100`);
  });

  it('sums a series up', () => {
    const { count, min, p50, p99, max } = summary(Array.from({ length: 101 }, (_, i) => i));
    assert.deepEqual({ count, min, p50, p99, max }, { count: 101, min: 0, p50: 50, p99: 99, max: 100 });
  });
});
