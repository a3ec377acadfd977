// SPDX-License-Identifier: Apache-2.0
// Limits of a subscription: what their headers say, and what becomes of the account's turns.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { rejectionIn, subscriptionReading } from '../../daemon/scheduler/subscription-headers.ts';
import type { HeaderReader, Outcome } from '../../daemon/scheduler/types.ts';
import { leaseOf, SchedulerLab } from '../lib/scheduler.ts';

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const NOW = Date.parse('2026-11-21T04:00:00Z');

type Said = Readonly<Record<string, string>>;

const reader =
  (said: Said): HeaderReader =>
  (name) =>
    said[name.replace(/^anthropic-ratelimit-unified-/, '')];
const epoch = (afterMs: number) => String((NOW + afterMs) / 1000);
const read = (said: Said) => subscriptionReading(reader(said), NOW);

const used: Said = {
  status: 'rejected',
  reset: epoch(2 * HOUR),
  'representative-claim': 'five_hour',
  '5h-status': 'rejected',
  '5h-utilization': '1.0',
  '5h-reset': epoch(2 * HOUR),
  '7d-status': 'allowed',
  '7d-utilization': '0.41',
  '7d-reset': epoch(90 * HOUR),
};

describe('subscriptionReading', () => {
  test('reads the status, the claim and both windows', () => {
    const { reading, bad } = read(used);
    assert.equal(bad, 0);
    assert.equal(reading?.status, 'rejected');
    assert.equal(reading.claim, 'five_hour');
    assert.equal(reading.fallback, false);
    assert.equal(reading.resetWallMs, NOW + 2 * HOUR);
    assert.deepEqual(reading.windows, [
      { window: '5h', status: 'rejected', used: 1, resetWallMs: NOW + 2 * HOUR },
      { window: '7d', status: 'allowed', used: 0.41, resetWallMs: NOW + 90 * HOUR },
    ]);
    assert.deepEqual(reading.headers.slice(0, 2), ['anthropic-ratelimit-unified-status', 'rejected']);
  });

  test('is nothing without a status', () => {
    assert.deepEqual(read({ '5h-utilization': '0.1' }), { reading: null, bad: 0 });
  });

  const lies: readonly (readonly [name: string, value: string])[] = [
    ['reset', '-1'],
    ['reset', '2026-11-21T06:00:00Z'],
    ['reset', '0'],
    ['reset', epoch(40 * 24 * HOUR)],
    ['5h-utilization', '-0.5'],
    ['5h-utilization', 'NaN'],
    ['5h-utilization', '95'],
    ['7d-status', ''],
    ['representative-claim', 'five hours\tand more'],
  ];
  for (const [name, value] of lies) {
    test(`counts and ignores what cannot be: ${name} ${JSON.stringify(value)}`, () => {
      const { reading, bad } = read({ ...used, [name]: value });
      const [fiveHours, sevenDays] = reading?.windows ?? [];
      const believed = {
        reset: reading?.resetWallMs,
        '5h-utilization': fiveHours?.used,
        '7d-status': sevenDays?.status,
        'representative-claim': reading?.claim,
      }[name];
      assert.deepEqual({ believed, bad }, { believed: null, bad: 1 });
    });
  }

  test('an unknown status is no reading', () => {
    assert.deepEqual(read({ ...used, status: 'no idea' }), { reading: null, bad: 1 });
  });

  test('whatever the text, what it yields can be', () => {
    const text = fc.oneof(fc.string(), fc.double().map(String), fc.constantFrom('allowed', 'rejected'));
    fc.assert(
      fc.property(text, text, text, text, (status, reset, utilization, claim) => {
        const { reading } = read({
          status,
          reset,
          '5h-utilization': utilization,
          'representative-claim': claim,
        });
        const [window] = reading?.windows ?? [];
        assert.ok(window?.used == null || (window.used >= 0 && window.used <= 10));
        const rejection = rejectionIn(reading, NOW);
        assert.ok(rejection === null || (rejection.forMs > 0 && rejection.forMs <= 32 * 24 * HOUR));
      }),
    );
  });
});

describe('rejectionIn', () => {
  const of = (changes: Said) => rejectionIn(read({ ...used, ...changes }).reading, NOW);

  test('is of the account for its own windows, and lasts until all that are full have begun anew', () => {
    assert.deepEqual(of({}), { forMs: 2 * HOUR, account: true });
    assert.deepEqual(of({ '7d-status': 'rejected' }), { forMs: 90 * HOUR, account: true });
  });

  test('is of the model alone for limits of a model, or where another one would be served', () => {
    assert.equal(of({ 'representative-claim': 'seven_day_opus' })?.account, false);
    assert.equal(of({ fallback: 'available' })?.account, false);
  });

  test('is none without a time that it ends, or unless it says so', () => {
    assert.equal(of({ reset: 'soon', '5h-reset': 'soon' }), null);
    assert.equal(of({ reset: epoch(-60 * SECOND), '5h-reset': epoch(-60 * SECOND) }), null);
    assert.equal(of({ status: 'allowed' }), null);
  });
});

describe('an account whose subscription is used up', () => {
  const turnedAway = (said: Said = used): Outcome => ({ kind: 'error', status: 429, headers: reader(said) });
  const codes = ({ refusals }: { refusals: readonly { code: string }[] }) => refusals.map(({ code }) => code);

  test('is not asked again, for any model: those who wait are told until when, and by what', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 } });
    const [one, two] = [lab.submit(), lab.submit()];
    const other = lab.submit({ modelClass: 'opus' });
    leaseOf(other).end({ kind: 'ok' });
    leaseOf(one).headers(reader(used), 429);
    const verdict = leaseOf(one).end(turnedAway());
    assert.equal(verdict.action, 'fail');
    assert.deepEqual(codes(two), ['subscription']);
    for (const modelClass of ['sonnet', 'opus', 'a model that was never asked']) {
      const [refusal] = lab.submit({ modelClass }).refusals;
      assert.equal(refusal?.code, 'subscription', modelClass);
      assert.equal(refusal.status, 429);
      assert.equal(refusal.retryAfterMs, 2 * HOUR);
      assert.equal(refusal.shouldRetry, false);
      assert.ok(refusal.headers?.includes('anthropic-ratelimit-unified-representative-claim'));
    }
    assert.equal(lab.submit({ credential: 'another' }).leases.length, 1);
    assert.equal(lab.upstream.breaker, 'open');
    assert.deepEqual(lab.upstream.subscription?.windows[0], {
      window: '5h',
      status: 'rejected',
      used: 1,
      resetMs: 2 * HOUR,
    });
    assert.equal(lab.upstream.lanes.limit, 1);
  });

  test('is tried by one turn after five minutes, and served again once that was', () => {
    const lab = new SchedulerLab();
    leaseOf(lab.submit()).end(turnedAway());
    lab.pass(299 * SECOND);
    assert.deepEqual(codes(lab.submit()), ['subscription']);
    lab.pass(2 * SECOND);
    const probe = lab.submit({ modelClass: 'opus' });
    assert.equal(probe.leases.length, 1);
    assert.deepEqual(codes(lab.submit()), ['subscription'], 'only one of all models tries');
    leaseOf(probe).end(turnedAway());
    assert.deepEqual(codes(lab.submit()), ['subscription']);
    lab.pass(301 * SECOND);
    leaseOf(lab.submit()).end({ kind: 'ok' });
    assert.equal(lab.submit().leases.length, 1);
    assert.equal(lab.submit({ modelClass: 'opus' }).leases.length, 1);
  });

  test('is served again as soon as the one that tries is answered, however that one ends', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 } });
    leaseOf(lab.submit()).end(turnedAway());
    // The window has begun anew.
    lab.pass(2 * HOUR + SECOND);
    const gone = lab.submit();
    const [refusal] = lab.submit({ modelClass: 'opus' }).refusals;
    assert.deepEqual([refusal?.code, refusal?.retryAfterMs], ['subscription', SECOND]);
    gone.ticket.cancel();
    const probe = lab.submit();
    assert.equal(probe.leases.length, 1, 'the one that tried has gone: the next one tries');
    assert.deepEqual(codes(lab.submit()), ['subscription']);
    leaseOf(probe).headers(reader({ ...used, status: 'allowed' }), 200);
    assert.equal(lab.submit({ modelClass: 'opus' }).leases.length, 1);
    const next = lab.submit();
    // The end of an answer that was begun before says nothing of what others are told since.
    const other = lab.submit({ modelClass: 'haiku' });
    leaseOf(other).end(turnedAway({ ...used, reset: epoch(5 * HOUR), '5h-reset': epoch(5 * HOUR) }));
    assert.deepEqual(codes(next), ['subscription']);
    leaseOf(probe).end({ kind: 'ok' });
    assert.deepEqual(codes(lab.submit()), ['subscription']);
  });

  test('still serves other models while the limit is that of one', () => {
    const lab = new SchedulerLab();
    const said = { ...used, 'representative-claim': 'seven_day_opus' };
    leaseOf(lab.submit({ modelClass: 'opus' })).end(turnedAway(said));
    assert.deepEqual(codes(lab.submit({ modelClass: 'opus' })), ['subscription']);
    assert.equal(lab.submit().leases.length, 1);
  });

  test('is kept quiet for a reset within a minute, and its lanes stay', () => {
    const lab = new SchedulerLab();
    const soon = { ...used, reset: epoch(40 * SECOND), '5h-reset': epoch(40 * SECOND) };
    const one = lab.submit();
    assert.equal(leaseOf(one).end(turnedAway(soon)).action, 'retry');
    assert.equal(lab.submit().leases.length, 0);
    assert.equal(lab.upstream.lanes.limit, 32);
    lab.pass(60 * SECOND);
    assert.equal(one.leases.length, 2);
  });

  test('is served while it pays for more: what was answered was not turned away', () => {
    const lab = new SchedulerLab();
    const lease = leaseOf(lab.submit());
    lease.headers(reader({ ...used, 'overage-status': 'allowed' }), 200);
    lease.end({ kind: 'ok' });
    assert.equal(lab.submit().leases.length, 1);
    assert.equal(lab.upstream.subscription?.status, 'rejected');
    const overloaded = leaseOf(lab.submit()).end({ kind: 'error', status: 529, headers: reader(used) });
    assert.equal(overloaded.action, 'retry', 'something else turned it away');
    lab.pass(60 * SECOND);
    const broken = leaseOf(lab.submit());
    broken.headers(reader({ ...used, 'overage-status': 'allowed' }), 200);
    assert.equal(broken.end(turnedAway()).action, 'retry', 'an error event in what was served');
    lab.pass(60 * SECOND);
    assert.equal(lab.submit().leases.length, 1);
  });

  test('lies change nothing, and are counted', () => {
    const lab = new SchedulerLab();
    const lie = { status: 'rejected', reset: '-1', '5h-utilization': 'all of it' };
    const lease = leaseOf(lab.submit());
    lease.headers(reader(lie), 429);
    assert.equal(lease.end(turnedAway(lie)).action, 'retry');
    assert.equal(lab.scheduler.counters().badHeaders, 2);
    lab.pass(60 * SECOND);
    assert.equal(lab.submit().leases.length, 1);
  });
});

test('near the end of a window background turns leave the rest to users, as long as there are any', () => {
  const warned: Said = {
    ...used,
    status: 'allowed_warning',
    '5h-status': 'allowed_warning',
    '5h-utilization': '0.85',
  };
  const lab = new SchedulerLab();
  const user = lab.submit();
  leaseOf(user).headers(reader(warned), 200);
  const background = lab.submit({ class: 'background', session: 's2' });
  const subagent = lab.submit({ class: 'subagent', session: 's3' });
  assert.equal(background.leases.length, 0, 'a fifth is left to users');
  assert.equal(subagent.leases.length, 1, 'a twentieth is');
  lab.pass(75 * SECOND);
  assert.equal(background.leases.length, 1, 'no user has come for a minute');

  const calm = new SchedulerLab();
  leaseOf(calm.submit()).headers(reader({ ...warned, status: 'allowed' }), 200);
  assert.equal(calm.submit({ class: 'background' }).leases.length, 1, 'the API itself sees no need');
});
