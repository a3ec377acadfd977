// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configuredLimits, RateLimits } from '../../daemon/scheduler/rate-limits.ts';
import { TokenBucket } from '../../daemon/scheduler/token-bucket.ts';

const MINUTE_MS = 60_000;

describe('TokenBucket', () => {
  test('gives what it has, then makes wait as long as the refill and the last minute need', () => {
    const bucket = new TokenBucket(60, 0);
    assert.equal(bucket.waitMs(60, 0, 0), 0);
    bucket.reserve(60);
    assert.equal(bucket.waitMs(1, 0, 0), Number.POSITIVE_INFINITY, 'only a settlement can make room');
    bucket.release(60);
    bucket.use(60, 0);
    // A second refills one, but all 60 were used within the minute that has not passed.
    assert.equal(bucket.waitMs(1, 0, 1_000), MINUTE_MS);
    assert.equal(bucket.waitMs(1, 0, 61_000), 0);
  });

  test('gives back what was reserved and not used', () => {
    const bucket = new TokenBucket(100, 0);
    bucket.reserve(80);
    assert.equal(bucket.available(0), 20);
    bucket.release(80);
    bucket.use(5, 0);
    assert.deepEqual([bucket.available(0), bucket.reserved], [95, 0]);
  });

  test('goes into debt when a turn used more, and pays it off', () => {
    const bucket = new TokenBucket(100, 0);
    bucket.reserve(10);
    bucket.release(10);
    bucket.use(150, 0);
    assert.equal(bucket.available(0), -50);
    assert.equal(bucket.available(30_000), -50, 'the minute still counts what the refill has forgiven');
    assert.equal(Math.round(bucket.available(61_000)), 52);
  });

  test('lets a turn larger than the limit go when everything is there', () => {
    const bucket = new TokenBucket(100, 0);
    assert.equal(bucket.waitMs(1_000, 0, 0), 0);
    bucket.reserve(10);
    assert.equal(bucket.waitMs(1_000, 0, 0), Number.POSITIVE_INFINITY);
    bucket.release(10);
    bucket.use(10, 0);
    assert.equal(bucket.waitMs(1_000, 0, 61_000), 0);
  });

  test('keeps a part for others', () => {
    const bucket = new TokenBucket(100, 0);
    bucket.release(0);
    bucket.use(10, 0);
    assert.ok(bucket.waitMs(71, 20, 0) > 0);
    assert.equal(bucket.waitMs(70, 20, 0), 0);
  });

  test('believes what the upstream says is left, also against its own count', () => {
    const bucket = new TokenBucket(100, 0);
    bucket.learn(200, 30, 0);
    assert.deepEqual([bucket.limitPerMin, bucket.available(0)], [200, 30]);
    bucket.learn(200, 150, 10);
    assert.equal(bucket.available(10), 150);
    bucket.learn(100, null, 10);
    assert.equal(bucket.available(10), 75, 'three quarters of a bucket stay three quarters');
  });

  test('a correction downwards does not undo what the upstream has told since', () => {
    const bucket = new TokenBucket(100, 0);
    bucket.reserve(50);
    bucket.release(50);
    bucket.use(50, 0);
    bucket.learn(100, 40, 5);
    bucket.refund(50, 0, 10);
    assert.ok(bucket.available(10) < 41);
    bucket.use(20, 10);
    assert.ok(bucket.available(10) < 21, 'what was used on top counts');
  });

  for (const [when, refundedAtMs] of [
    ['while it counts', 5_000],
    ['when it does not count any more', 70_000],
  ] as const) {
    test(`what was taken back ${when} is in no minute, however often it is looked at`, () => {
      const bucket = new TokenBucket(100, 0);
      bucket.use(50, 0);
      let least = 100;
      for (let ms = 0; ms <= 300_000; ms += 1_000) {
        if (ms === refundedAtMs) bucket.refund(40.3, 0, ms);
        // Something is always used, as a busy account does.
        bucket.use(0.1, ms);
        if (ms > refundedAtMs + 60_000) least = Math.min(least, bucket.available(ms));
      }
      // A tenth each second is six and a tenth a minute.
      assert.ok(least > 93.8, `${least}`);
      assert.equal(bucket.available(400_000), 100);
    });
  }

  test('counts what is used before its limit is known', () => {
    const bucket = new TokenBucket(Number.POSITIVE_INFINITY, 0);
    assert.equal(bucket.waitMs(1e9, 0, 0), 0);
    bucket.use(70, 0);
    bucket.reserve(10);
    assert.equal(bucket.available(0), Number.POSITIVE_INFINITY);
    bucket.learn(100, null, 1_000);
    assert.deepEqual([bucket.limitPerMin, bucket.available(1_000)], [100, 20]);
  });

  test('hands out evenly while turns wait, what was saved up too, and all at once when nobody does', () => {
    const bucket = new TokenBucket(60, 0);
    bucket.pace(0);
    const takenIn = (fromMs: number, toMs: number) => {
      let taken = 0;
      for (let ms = fromMs; ms < toMs; ms += 100) {
        while (bucket.waitMs(1, 0, ms) === 0) {
          bucket.use(1, ms);
          taken += 1;
        }
      }
      return taken;
    };
    // Two seconds' worth may go at once.
    assert.equal(takenIn(0, 100), 2);
    assert.equal(takenIn(100, 30_100), 30);
    assert.equal(bucket.waitMs(1, 0, 30_100, false), 0, 'there is more for those who need not wait for it');
    bucket.relax();
    assert.equal(takenIn(30_100, 30_200), 28);
  });

  test('after a large turn the next one waits the longer, and what it did not use counts for it', () => {
    const bucket = new TokenBucket(60, 0);
    bucket.pace(0);
    bucket.reserve(32);
    assert.equal(bucket.waitMs(1, 0, 0), 30_000);
    bucket.use(12, 0);
    bucket.release(32);
    assert.equal(bucket.waitMs(1, 0, 0), 10_000);
  });

  test('what is handed out evenly follows the limit, as the bucket does', () => {
    const bucket = new TokenBucket(6_000, 0);
    bucket.pace(0);
    bucket.reserve(3_200);
    assert.equal(bucket.waitMs(1, 0, 0), 30_000);
    bucket.learn(60_000, null, 0);
    assert.equal(bucket.waitMs(1, 0, 0), 30_000, 'more of it, and so of the debt');
    bucket.learn(600, null, 0);
    bucket.release(3_200);
    assert.equal(bucket.waitMs(1, 0, 0), 0);
  });

  for (const known of [true, false]) {
    test(`an absurd limit keeps nobody for longer than two minutes, in place of ${known ? 'a better one' : 'none'}`, () => {
      const bucket = new TokenBucket(known ? 100_000 : Number.POSITIVE_INFINITY, 0);
      bucket.learn(1, null, 0);
      bucket.pace(0);
      bucket.reserve(50_000);
      bucket.use(50_000, 0);
      bucket.release(50_000);
      const waitMs = bucket.waitMs(50_000, 0, 0);
      assert.ok(waitMs <= 121_000, `${waitMs}`);
      assert.equal(bucket.waitMs(50_000, 0, 121_000), 0);
      bucket.learn(100_000, 99_000, 121_000);
      assert.equal(bucket.waitMs(1_000, 0, 121_000), 0);
      assert.equal(new TokenBucket(1, 0, -50_000).waitMs(1, 0, 120_000), 0, 'as it was saved');
    });
  }

  const use = fc.record({
    afterMs: fc.integer({ min: 0, max: 5_000 }),
    amount: fc.integer({ min: 1, max: 40 }),
    holdMs: fc.integer({ min: 0, max: 20_000 }),
  });

  test('whoever asks first, no minute sees more than the limit, and in the end all is there again', () => {
    fc.assert(
      fc.property(fc.array(use, { maxLength: 120 }), (uses) => {
        const limit = 100;
        const bucket = new TokenBucket(limit, 0);
        const used: { atMs: number; amount: number }[] = [];
        const ends: { atMs: number; amount: number }[] = [];
        let nowMs = 0;
        const settleUntil = (ms: number) => {
          ends.sort((a, b) => a.atMs - b.atMs);
          while (ends[0] !== undefined && ends[0].atMs <= ms) {
            const { atMs, amount } = ends.shift() as { atMs: number; amount: number };
            bucket.release(amount);
            bucket.use(amount, atMs);
            used.push({ atMs, amount });
          }
        };
        for (const { afterMs, amount, holdMs } of uses) {
          nowMs += afterMs;
          settleUntil(nowMs);
          for (let turns = 0; ; turns += 1) {
            assert.ok(turns < 1_000, 'it never gets its turn');
            const waitMs = bucket.waitMs(amount, 0, nowMs);
            if (waitMs === 0) break;
            // Only a settlement can help: there must be one to come.
            if (waitMs === Number.POSITIVE_INFINITY) assert.ok(ends.length > 0);
            nowMs = Math.min(nowMs + waitMs, ends[0]?.atMs ?? Number.POSITIVE_INFINITY);
            settleUntil(nowMs);
          }
          bucket.reserve(amount);
          ends.push({ atMs: nowMs + holdMs, amount });
        }
        settleUntil(Number.POSITIVE_INFINITY);
        for (const { atMs } of used) {
          const inMinute = used.filter((one) => one.atMs > atMs - MINUTE_MS && one.atMs <= atMs);
          assert.ok(inMinute.reduce((sum, one) => sum + one.amount, 0) <= limit);
        }
        const lastMs = Math.max(nowMs, ...used.map(({ atMs }) => atMs));
        assert.equal(bucket.reserved, 0);
        assert.equal(bucket.available(lastMs + 2 * MINUTE_MS), limit);
      }),
      { numRuns: 200 },
    );
  });
});

describe('RateLimits', () => {
  const amounts = { requests: 1, inputTokens: 1_000, outputTokens: 100 };
  const headers = (values: Record<string, string>) => (name: string) => values[name];

  test('knows no limit until it is told one', () => {
    const limits = new RateLimits({}, 0);
    assert.equal(limits.waitMs({ ...amounts, inputTokens: 1e9 }, 0, 0), 0);
    limits.learn(
      headers({
        'anthropic-ratelimit-input-tokens-limit': '10000',
        'anthropic-ratelimit-input-tokens-remaining': '500',
      }),
      0,
    );
    // 500 more at 10,000 a minute.
    assert.equal(limits.waitMs(amounts, 0, 0), 3_000);
  });

  test('what an answer tells is not counted a second time for the turn that it answers', () => {
    const limits = new RateLimits({ requests: 10 }, 0);
    const reservation = limits.reserve(amounts);
    reservation.arrived(0);
    limits.learn(headers({ 'x-ratelimit-limit-requests': '10', 'x-ratelimit-remaining-requests': '9' }), 0);
    const requests = () => limits.snapshot(0)[0];
    assert.deepEqual([requests()?.available, requests()?.reserved], [9, 0]);
    reservation.settle(amounts, 0);
    assert.equal(requests()?.available, 9);
  });

  test('what the administrator allows stays the limit', () => {
    const limits = new RateLimits({ requests: 5 }, 0);
    limits.learn(
      headers({ 'x-ratelimit-limit-requests': '500', 'x-ratelimit-remaining-requests': '499' }),
      0,
    );
    assert.equal(limits.limitPerMin('requests'), 5);
  });

  test("output counts towards OpenAI's one limit for tokens", () => {
    const limits = new RateLimits({}, 0);
    limits.learn(headers({ 'x-ratelimit-limit-tokens': '2000', 'x-ratelimit-remaining-tokens': '2000' }), 0);
    limits.reserve(amounts);
    assert.equal(limits.snapshot(0)[1]?.available, 900);
  });

  test('of several configured limits the smallest applies, and only where it belongs', () => {
    const configured = [
      { perMin: { requests: 100, outputTokens: 9_000 } },
      { provider: 'anthropic', perMin: { requests: 50 } },
      { provider: 'anthropic', modelClass: 'opus', perMin: { requests: 5 } },
    ];
    const of = (provider: string, modelClass: string) =>
      configuredLimits(configured, { provider, modelClass }).requests;
    assert.deepEqual([of('openai', 'gpt'), of('anthropic', 'haiku'), of('anthropic', 'opus')], [100, 50, 5]);
  });
});
