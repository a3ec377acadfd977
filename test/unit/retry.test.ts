// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  afterError,
  afterHang,
  RetryBudget,
  type RetryCandidate,
  retryDelayMs,
} from '../../daemon/scheduler/retry.ts';
import { defaultSettings } from '../../daemon/scheduler/settings.ts';

const { retry } = defaultSettings;
const fresh: RetryCandidate = {
  retryable: true,
  committed: false,
  retries: 0,
  turnedAway: 0,
  attempt: 0,
  submittedAtMs: 0,
};
const silent = { afterMs: null, shouldRetry: null };

function error(turn: Partial<RetryCandidate>, status: number | null, more: object = {}, nowMs = 0) {
  const told = { status, advice: silent, quotaExhausted: false, ...more };
  return afterError({ ...fresh, ...turn }, told, nowMs, 0, retry);
}

function hang(turn: Partial<RetryCandidate> = {}, affordable = true, nowMs = 120_000) {
  return afterHang({ ...fresh, ...turn }, 'first-byte', affordable, nowMs, 1, retry);
}

describe('afterError', () => {
  for (const status of [null, 408, 409, 429, 500, 502, 503, 529]) {
    test(`${status ?? 'a cut connection'} is tried again`, () => {
      assert.equal(error({}, status).action, 'retry');
    });
  }

  for (const status of [400, 401, 403, 404, 413, 422]) {
    test(`${status} is the client's affair`, () => {
      const verdict = error({}, status);
      assert.deepEqual([verdict.action, 'shouldRetry' in verdict && verdict.shouldRetry], ['fail', null]);
    });
  }

  test('x-should-retry overrides the status, both ways', () => {
    assert.equal(error({}, 500, { advice: { afterMs: null, shouldRetry: false } }).action, 'fail');
    assert.equal(error({}, 400, { advice: { afterMs: null, shouldRetry: true } }).action, 'retry');
  });

  test('never what must not be sent twice, nor once the client has seen a part', () => {
    assert.equal(error({ retryable: false }, 500).action, 'fail');
    assert.equal(error({ committed: true }, 500).action, 'fail');
    assert.equal(error({}, 429, { quotaExhausted: true }).action, 'fail');
  });

  test('at most twice, and then the client is told not to go on with it', () => {
    assert.equal(error({ retries: 1 }, 500).action, 'retry');
    assert.deepEqual(error({ retries: 2 }, 500), {
      action: 'fail',
      reason: 'status 500, retries used up',
      shouldRetry: false,
      retryAfterMs: null,
    });
    assert.equal(error({ retries: 2 }, 429).action, 'retry', 'what was turned away counts for itself');
    assert.equal(error({ turnedAway: 8 }, 529).action, 'fail');
  });

  test('not after the client has given up', () => {
    const wait = { advice: { afterMs: 100_000, shouldRetry: null } };
    assert.equal(error({}, 429, wait, 180_000).action, 'retry');
    assert.deepEqual(error({}, 429, wait, 200_000), {
      action: 'fail',
      reason: 'status 429, a retry would come after the client has given up',
      shouldRetry: null,
      retryAfterMs: 100_000,
    });
  });

  test('never sooner than the upstream said', () => {
    fc.assert(
      fc.property(
        fc.nat(10),
        fc.option(fc.integer({ min: 0, max: 86_400_000 })),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (count, afterMs, random) => {
          const delayMs = retryDelayMs(count, afterMs, random, retry);
          assert.ok(delayMs >= (afterMs ?? 0));
          assert.ok(delayMs <= (afterMs ?? 0) + retry.backoffMostMs);
          if (afterMs === null) assert.ok(delayMs >= retry.backoffMs * (1 - retry.jitter));
        },
      ),
    );
  });

  test('later with each retry, and apart from each other', () => {
    const at = (count: number, random: number) => retryDelayMs(count, null, random, retry);
    assert.deepEqual([at(0, 0), at(1, 0), at(2, 0), at(9, 0)], [500, 1_000, 2_000, 8_000]);
    assert.deepEqual([at(0, 1), retryDelayMs(0, 2_000, 1, retry)], [375, 2_125]);
  });
});

describe('afterHang', () => {
  test('twice, while nothing of it is with the client', () => {
    assert.equal(hang().action, 'retry');
    assert.equal(hang({ retries: 1 }).action, 'retry');
    assert.equal(hang({ retries: 2 }).action, 'fail');
    assert.equal(hang({ committed: true }).action, 'fail');
    assert.equal(hang({ retryable: false }).action, 'fail');
    assert.equal(hang({}, undefined, 290_000).action, 'fail', 'its client has given up');
  });

  test('not what has used up its time', () => {
    for (const cause of ['whole-response', 'lease-expired'] as const) {
      assert.equal(afterHang(fresh, cause, true, 0, 0, retry).action, 'fail');
    }
  });

  test('a second retry only if it can be afforded; the first is always due', () => {
    assert.equal(hang({ retries: 1 }, false).action, 'fail');
    assert.equal(hang({ retries: 0 }, false).action, 'retry');
  });
});

test('the retry budget is a tenth of the lane time that served', () => {
  const budget = new RetryBudget(retry);
  assert.equal(budget.allows(0), true);
  budget.served(1_000_000, 0);
  budget.lost(99_999, 0);
  assert.equal(budget.allows(0), true);
  budget.lost(2, 0);
  assert.equal(budget.allows(0), false);
  budget.served(1_000_000, 60_000);
  assert.equal(budget.allows(60_000), true);
  budget.lost(100_000, 60_000);
  assert.equal(budget.allows(60_000), false);
  // Both fade alike; what is served later counts more.
  budget.served(500_000, 3_000_000);
  assert.equal(budget.allows(3_000_000), true);
});
