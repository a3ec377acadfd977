// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { adviceOf, advisedHighBytes, type Observation, peaksOf } from '../../daemon/policy/learned.ts';
import { parseIntent } from '../../daemon/toolcall/intent.ts';

const MIB = 2 ** 20;
const ran = (...mib: number[]): Observation[] =>
  mib.map((size) => ({ peakBytes: size * MIB, cutShort: false }));
const cut = (...mib: number[]): Observation[] =>
  mib.map((size) => ({ peakBytes: size * MIB, cutShort: true }));
const known = (mib: number) => ({ bytes: mib * MIB, atLeast: false });
const atLeast = (mib: number) => ({ bytes: mib * MIB, atLeast: true });

describe('peaksOf', () => {
  test('of runs that all came to their end they are the plain percentiles', () => {
    const peaks = peaksOf(ran(...Array.from({ length: 20 }, (_, index) => 20 - index)));
    assert.deepEqual(peaks, { p50: known(10), p95: known(19), max: known(20) });
  });

  test('nothing is known where no run came to its end, or none there is', () => {
    assert.equal(peaksOf([]), null);
    assert.equal(peaksOf(cut(100, 200)), null);
  });

  test('a run that was cut short low counts for those above it', () => {
    // By hand: 1/4 at 10; of the two left at 30 one: 5/8; the last at 40: 1. Without the run cut short p50 is 30 too,
    // but with it as if it had needed 20 p50 would be 20.
    assert.deepEqual(peaksOf([...ran(10, 30, 40), ...cut(20)]), {
      p50: known(30),
      p95: known(40),
      max: known(40),
    });
  });

  test('runs that were killed at a limit push the percentile beyond it', () => {
    assert.deepEqual(peaksOf([...ran(10, 20, 30), ...cut(128, 128, 128, 128)]), {
      p50: atLeast(128),
      p95: atLeast(128),
      max: atLeast(128),
    });
  });

  test('one that was cut short at the size of another needs at least as much', () => {
    assert.deepEqual(peaksOf([...cut(50), ...ran(50, 50)]), {
      p50: known(50),
      p95: atLeast(50),
      max: atLeast(50),
    });
  });

  const observation: fc.Arbitrary<Observation> = fc.record({
    peakBytes: fc.integer({ min: 1, max: 2 ** 40 }),
    cutShort: fc.boolean(),
  });

  test('is in order, among what was seen, and does not depend on the order of the runs', () => {
    fc.assert(
      fc.property(fc.array(observation, { maxLength: 64 }), (runs) => {
        const peaks = peaksOf(runs);
        assert.deepEqual(peaksOf(runs.toReversed()), peaks);
        if (peaks === null) return assert.ok(runs.every(({ cutShort }) => cutShort));
        assert.ok(peaks.p50.bytes <= peaks.p95.bytes && peaks.p95.bytes <= peaks.max.bytes);
        for (const { bytes } of Object.values(peaks))
          assert.ok(runs.some(({ peakBytes }) => peakBytes === bytes));
      }),
    );
  });

  test('to cut a run short never makes the need look smaller', () => {
    fc.assert(
      fc.property(fc.array(observation, { minLength: 1, maxLength: 64 }), fc.nat(), (runs, at) => {
        const shorter = runs.map((run, index) =>
          index === at % runs.length ? { ...run, cutShort: true } : run,
        );
        const before = peaksOf(runs);
        const after = peaksOf(shorter);
        if (before === null || after === null) return;
        assert.ok(after.p50.bytes >= before.p50.bytes && after.p95.bytes >= before.p95.bytes);
      }),
    );
  });
});

describe('what is advised', () => {
  const learned = (observations: readonly Observation[]) => ({
    uid: 7,
    repository: '/r',
    shape: 'npm test',
    lastRunAt: '2026-01-01T00:00:00.000Z',
    observations,
  });

  test('is p95 and a quarter, as an intent and as a rule', () => {
    const advice = adviceOf(learned([...ran(...Array(18).fill(100), 300), ...cut(50)]), 20, Infinity);
    assert.deepEqual(advice, {
      uid: 7,
      repository: '/r',
      command: 'npm test',
      runs: 20,
      cutShort: 1,
      lastRunAt: '2026-01-01T00:00:00.000Z',
      p50: known(100),
      p95: known(300),
      max: known(300),
      intent: 'memory.high=384M',
      rule: { command: 'npm test', intent: 'memory.high=384M' },
    });
  });

  test('is nothing with too few runs', () => {
    assert.equal(adviceOf(learned(ran(...Array(9).fill(100))), 10, Infinity), null);
    assert.notEqual(adviceOf(learned(ran(...Array(10).fill(100))), 10, Infinity), null);
  });

  test('is twice what runs had when they were killed', () => {
    const peaks = peaksOf([...ran(10), ...cut(...Array(9).fill(128))]);
    assert.ok(peaks !== null);
    assert.equal(advisedHighBytes(peaks, Infinity), 256 * MIB);
  });

  test('is an intent that says nothing but memory.high, never under 64 MiB or over what the user may have', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 2 ** 20 }), { minLength: 2, maxLength: 64 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 64, max: 2 ** 20 }), (mib, most) => {
        const advice = adviceOf(learned(ran(...mib)), 2, most * MIB);
        const parsed = parseIntent(advice?.intent ?? 'none');
        assert.ok(parsed.ok);
        assert.deepEqual(Object.keys(parsed.intent), ['memoryHighBytes']);
        const { memoryHighBytes = 0 } = parsed.intent;
        assert.ok(memoryHighBytes >= 64 * MIB && memoryHighBytes <= most * MIB);
      }),
    );
  });
});
