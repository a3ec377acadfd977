// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { rateReadings } from '../../daemon/scheduler/rate-headers.ts';
import { retryAdvice } from '../../daemon/scheduler/retry-after.ts';

const reader = (headers: Record<string, string>) => (name: string) => headers[name] ?? null;

describe('rateReadings', () => {
  test("reads Anthropic's headers", () => {
    const headers = {
      'anthropic-ratelimit-requests-limit': '50',
      'anthropic-ratelimit-requests-remaining': '49',
      'anthropic-ratelimit-requests-reset': '2026-11-21T04:00:00Z',
      'anthropic-ratelimit-input-tokens-limit': '30000',
      'anthropic-ratelimit-input-tokens-remaining': '0',
      'anthropic-ratelimit-output-tokens-limit': '8000',
    };
    assert.deepEqual(rateReadings(reader(headers)), {
      readings: [
        { resource: 'requests', limitPerMin: 50, remaining: 49, bothTokens: false },
        { resource: 'inputTokens', limitPerMin: 30_000, remaining: 0, bothTokens: false },
        { resource: 'outputTokens', limitPerMin: 8_000, remaining: null, bothTokens: false },
      ],
      bad: 0,
    });
  });

  test("reads OpenAI's, whose tokens are input and output together", () => {
    const headers = {
      'x-ratelimit-limit-requests': '500',
      'x-ratelimit-remaining-requests': '499',
      'x-ratelimit-limit-tokens': '200000',
      'x-ratelimit-remaining-tokens': '199000',
    };
    assert.deepEqual(rateReadings(reader(headers)).readings, [
      { resource: 'requests', limitPerMin: 500, remaining: 499, bothTokens: false },
      { resource: 'inputTokens', limitPerMin: 200_000, remaining: 199_000, bothTokens: true },
    ]);
  });

  const lies: readonly (readonly [limit: string, remaining: string, bad: number])[] = [
    ['-1', '-1', 2],
    ['0', '0', 1],
    ['none', 'many', 2],
    ['', '', 2],
    ['50', '-1', 1],
    ['50', '51', 1],
    ['1e3', '7', 1],
    ['99999999999999999999', '1', 1],
  ];
  for (const [limit, remaining, bad] of lies) {
    test(`believes no lie: limit ${limit || 'empty'}, remaining ${remaining || 'empty'}`, () => {
      const found = rateReadings(
        reader({ 'x-ratelimit-limit-requests': limit, 'x-ratelimit-remaining-requests': remaining }),
      );
      assert.equal(found.bad, bad);
      const believed = limit === '50' ? [{ limitPerMin: 50, remaining: null }] : [];
      assert.deepEqual(
        found.readings.map(({ limitPerMin, remaining: left }) => ({ limitPerMin, remaining: left })),
        believed,
      );
    });
  }

  test('whatever the text, what it yields can be: limits from 1, 0 to the limit left', () => {
    fc.assert(
      fc.property(fc.string(), fc.oneof(fc.string(), fc.integer().map(String)), (limit, remaining) => {
        const { readings } = rateReadings(
          reader({
            'anthropic-ratelimit-input-tokens-limit': limit,
            'anthropic-ratelimit-input-tokens-remaining': remaining,
          }),
        );
        for (const { limitPerMin, remaining: left } of readings) {
          assert.ok(Number.isInteger(limitPerMin) && limitPerMin >= 1);
          assert.ok(left === null || (left >= 0 && left <= limitPerMin));
        }
      }),
    );
  });
});

describe('retryAdvice', () => {
  const now = Date.parse('2026-11-21T04:00:00Z');
  const after: readonly (readonly [headers: Record<string, string>, ms: number | null])[] = [
    [{ 'retry-after': '7' }, 7_000],
    [{ 'retry-after': '0.25' }, 250],
    [{ 'retry-after': ' 3 ' }, 3_000],
    [{ 'retry-after': 'Sat, 21 Nov 2026 04:00:30 GMT' }, 30_000],
    [{ 'retry-after': 'Sat, 21 Nov 2026 03:59:00 GMT' }, 0],
    [{ 'retry-after': 'Saturday, 21-Nov-26 04:01:00 GMT' }, 60_000],
    [{ 'retry-after-ms': '1500.5' }, 1_500.5],
    [{ 'retry-after-ms': '100', 'retry-after': '9' }, 100],
    [{ 'retry-after-ms': 'soon', 'retry-after': '9' }, 9_000],
    [{ 'retry-after': '-5' }, null],
    [{ 'retry-after': 'later' }, null],
    [{ 'retry-after': '' }, null],
    [{ 'retry-after': '1e9' }, null],
    [{ 'retry-after': '999999999999' }, 86_400_000],
    [{}, null],
  ];
  for (const [headers, ms] of after) {
    test(`${JSON.stringify(headers)} is ${ms}`, () => {
      assert.equal(retryAdvice(reader(headers), now).afterMs, ms);
    });
  }

  test('x-should-retry is true, false or nothing', () => {
    const of = (value: string) => retryAdvice(reader({ 'x-should-retry': value }), now).shouldRetry;
    assert.deepEqual([of('true'), of('false'), of('yes')], [true, false, null]);
  });
});
