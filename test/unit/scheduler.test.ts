// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Scheduler } from '../../daemon/scheduler/scheduler.ts';
import type { HeaderReader } from '../../daemon/scheduler/types.ts';
import { leaseOf, SchedulerLab, settings } from '../lib/scheduler.ts';

const oneLane = { lanes: { fixed: 1 } };
const headers =
  (values: Record<string, string>): HeaderReader =>
  (name) =>
    values[name];
const turnedAway = (values: Record<string, string> = {}) =>
  ({ kind: 'error', status: 429, headers: headers(values) }) as const;

describe('lanes', () => {
  test('without contention the queue adds nothing: ten subagents at once start at once', () => {
    const lab = new SchedulerLab();
    const turns = Array.from({ length: 10 }, (_, n) =>
      lab.submit({ class: 'subagent', agent: `a${n}`, runStart: false }),
    );
    assert.deepEqual(
      turns.map((one) => leaseOf(one).waitedMs),
      turns.map(() => 0),
    );
    assert.equal(lab.upstream.lanes.held, 10);
  });

  test('each credential and model class has lanes of its own', () => {
    const lab = new SchedulerLab(oneLane);
    for (const changes of [{}, { credential: 'c2' }, { modelClass: 'opus' }, { provider: 'openai' }]) {
      assert.equal(lab.submit(changes).leases.length, 1);
    }
    assert.equal(lab.submit().leases.length, 0);
  });

  test('a lane goes on when its turn ends, fails for good, is aborted, hangs, or its owner dies', () => {
    const never = Number.POSITIVE_INFINITY;
    const lab = new SchedulerLab({ ...oneLane, retry: { most: 0 }, agents: { abandonedMs: never } });
    const ways: ((one: ReturnType<SchedulerLab['submit']>) => void)[] = [
      (one) => leaseOf(one).end({ kind: 'ok' }),
      (one) => leaseOf(one).end({ kind: 'error', status: 500 }),
      (one) => one.ticket.cancel(),
      () => lab.pass(120_000),
      () => assert.equal(lab.scheduler.endOwner('worker'), 1),
    ];
    for (const way of ways) {
      const first = lab.submit({ owner: 'worker' });
      const next = lab.submit();
      assert.equal(next.leases.length, 0);
      way(first);
      assert.equal(leaseOf(first).live, false);
      leaseOf(next).end({ kind: 'ok' });
    }
    const { held } = lab.upstream.lanes;
    assert.deepEqual([held, lab.scheduler.snapshot().running, lab.clock.timers], [0, 0, 0]);
  });

  test('what is over stays over: a second end, progress, an abort afterwards change nothing', () => {
    const lab = new SchedulerLab(oneLane);
    const one = lab.submit();
    const lease = leaseOf(one);
    lease.end({ kind: 'ok' });
    const before = lab.scheduler.counters();
    assert.deepEqual(lease.end({ kind: 'error', status: 500 }), { action: 'done' });
    lease.progress('content');
    lease.pause('frozen');
    lease.headers(headers({ 'x-ratelimit-limit-requests': '1' }), 200);
    one.ticket.cancel();
    assert.deepEqual(lab.scheduler.counters(), before);
    assert.deepEqual(one.refusals, []);
  });

  test('halve when turned away, once for answers that come together, and grow back one by one', () => {
    const lab = new SchedulerLab({ lanes: { start: 8, raiseAfter: 2 } });
    const turns = Array.from({ length: 8 }, () => lab.submit());
    leaseOf(turns[0] as (typeof turns)[0]).end(turnedAway());
    leaseOf(turns[1] as (typeof turns)[0]).end(turnedAway());
    assert.equal(lab.upstream.lanes.limit, 4);
    assert.equal(lab.scheduler.counters().rateLimited, 2);
    for (const one of turns.slice(2)) leaseOf(one).end({ kind: 'ok' });
    // Six clean ends raise it by less than three: the last of them left the lanes mostly unused.
    const { limit } = lab.upstream.lanes;
    assert.ok(limit > 4 && limit < 7, `${limit}`);
  });

  test('never fewer than one', () => {
    const lab = new SchedulerLab({ lanes: { start: 2 } });
    for (let n = 0; n < 5; n += 1) {
      leaseOf(lab.submit({ retryable: false })).end(turnedAway({ 'retry-after': '2' }));
      lab.pass(10_000);
    }
    assert.equal(lab.upstream.lanes.limit, 1);
  });
});

describe('levels', () => {
  test("a user's turn goes before subagents, these before the background", () => {
    const lab = new SchedulerLab(oneLane);
    const first = lab.submit();
    const [background, subagent, user] = (['background', 'subagent', 'interactive'] as const).map((name) =>
      lab.submit({ class: name, session: name }),
    );
    leaseOf(first).end({ kind: 'ok' });
    for (const one of [user, subagent]) {
      assert.ok(one !== undefined);
      leaseOf(one).end({ kind: 'ok' });
    }
    assert.deepEqual(
      lab.granted,
      [first, user, subagent, background].map((one) => one?.turn.id),
    );
  });

  test('a run goes down by the service that it uses, and up again when a person speaks', () => {
    const lab = new SchedulerLab();
    const level = () => lab.upstream.turns[0]?.level;
    const serve = (runStart: boolean, ms: number) => {
      const lease = leaseOf(lab.submit({ runStart }));
      const at = level();
      for (let passed = 0; passed < ms; passed += 5_000) {
        lab.pass(Math.min(5_000, ms - passed));
        lease.progress('content');
      }
      lease.end({ kind: 'ok' });
      return at;
    };
    assert.deepEqual(
      [
        serve(true, 9_000),
        serve(false, 2_000),
        serve(false, 38_000),
        serve(false, 2_000),
        serve(false, 1_000),
      ],
      ['interactive', 'interactive', 'subagent', 'subagent', 'background'],
    );
    assert.equal(serve(true, 0), 'interactive');
    assert.equal(lab.scheduler.counters().demoted, 2);
  });

  test('time that hung, and time for which its reader kept it, is no service', () => {
    const lab = new SchedulerLab({ retry: { most: 0 } });
    lab.submit();
    lab.pass(120_000);
    const slow = leaseOf(lab.submit({ runStart: false }));
    slow.pause('back-pressure');
    lab.pass(60_000);
    slow.end({ kind: 'ok' });
    lab.submit({ runStart: false });
    assert.equal(lab.upstream.turns[0]?.level, 'interactive');
  });

  test('a class is a floor: a background run is not lifted by its words', () => {
    const lab = new SchedulerLab();
    lab.submit({ class: 'background', runStart: true });
    assert.equal(lab.upstream.turns[0]?.level, 'background');
  });

  test('subagents of a session do not use up the run of its user', () => {
    const lab = new SchedulerLab();
    const helper = leaseOf(lab.submit({ class: 'subagent', agent: 'a1' }));
    lab.pass(60_000);
    helper.end({ kind: 'ok' });
    lab.submit({ runStart: false });
    assert.equal(lab.upstream.turns[0]?.level, 'interactive');
  });
});

describe('queue', () => {
  test('is bounded, for one session and in all, and counts what it refused', () => {
    const lab = new SchedulerLab({ ...oneLane, queue: { maxTurns: 3, maxTurnsOfSession: 2 } });
    lab.submit();
    const queued = [lab.submit(), lab.submit()];
    const ofSession = lab.submit();
    const other = lab.submit({ session: 's2' });
    const last = lab.submit({ session: 's3' });
    assert.deepEqual(
      [...queued, ofSession, other, last].map(({ refusals }) =>
        refusals.map(({ code, status }) => `${code} ${status}`),
      ),
      [[], [], ['queue-full 529'], [], ['queue-full 529']],
    );
    assert.equal(lab.scheduler.counters().refused['queue-full'], 2);
  });

  test('no turn waits over 240 s; the same request comes back to its place', () => {
    const lab = new SchedulerLab(oneLane);
    const holder = leaseOf(lab.submit({ streaming: false, session: 's0' }));
    const tired = lab.submit({ bodyHash: () => 'same' });
    lab.pass(100_000);
    const later = lab.submit({ session: 's2' });
    lab.pass(140_000);
    assert.deepEqual(
      tired.refusals.map(({ code, status, shouldRetry, retryAfterMs }) => [
        code,
        status,
        shouldRetry,
        retryAfterMs,
      ]),
      [['wait-expired', 529, true, 1_000]],
    );
    const back = lab.submit({ bodyHash: () => 'same' });
    const stranger = lab.submit({ bodyHash: () => 'same', credential: 'c2' });
    holder.end({ kind: 'ok' });
    assert.deepEqual([back.leases.length, later.leases.length, stranger.leases.length], [1, 0, 1]);
    assert.equal(lab.scheduler.counters().placesKept, 1);
  });

  test('the hash of a request is made only when a place is kept that it may have', () => {
    const lab = new SchedulerLab(oneLane);
    let made = 0;
    const bodyHash = () => {
      made += 1;
      return 'same';
    };
    const holder = leaseOf(lab.submit({ streaming: false, bodyHash }));
    holder.end({ kind: 'ok' });
    assert.equal(made, 0);
    leaseOf(lab.submit({ streaming: false, session: 's0' }));
    lab.submit({ bodyHash: () => 'other' });
    lab.pass(240_000);
    lab.submit({ bodyHash });
    assert.equal(made, 1);
  });

  test('a place is not kept for ever', () => {
    const lab = new SchedulerLab(oneLane);
    const holder = leaseOf(lab.submit({ streaming: false, session: 's0' }));
    lab.submit({ bodyHash: () => 'same' });
    lab.pass(239_000);
    const later = lab.submit({ session: 's2' });
    lab.pass(61_001);
    const back = lab.submit({ bodyHash: () => 'same' });
    holder.end({ kind: 'ok' });
    assert.deepEqual([later.leases.length, back.leases.length], [1, 0]);
  });

  test('who leaves it is not served', () => {
    const lab = new SchedulerLab(oneLane);
    const holder = leaseOf(lab.submit());
    const gone = lab.submit();
    const next = lab.submit();
    gone.ticket.cancel();
    gone.ticket.cancel();
    holder.end({ kind: 'ok' });
    assert.deepEqual([gone.leases.length, next.leases.length], [0, 1]);
    assert.deepEqual(
      gone.refusals.map(({ code }) => code),
      ['cancelled'],
    );
  });

  test('closing it refuses what waits, now and later, and leaves no timer', () => {
    const lab = new SchedulerLab(oneLane);
    const running = leaseOf(lab.submit());
    const waiting = lab.submit();
    lab.scheduler.close();
    assert.deepEqual(
      [waiting, lab.submit()].map(({ refusals }) => refusals[0]?.code),
      ['closed', 'closed'],
    );
    assert.equal(running.end({ kind: 'error', status: 500 }).action, 'fail', 'no retry any more');
    assert.equal(lab.clock.timers, 0);
  });

  test('within a level a storm of one session does not reach the others', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 2 } });
    const storm = Array.from({ length: 50 }, () => lab.submit({ session: 'storm' }));
    lab.pass(1_000);
    const other = lab.submit({ session: 'other' });
    leaseOf(storm[0] as (typeof storm)[0]).end({ kind: 'ok' });
    assert.equal(other.leases.length, 1);
  });
});

describe('fairness', () => {
  for (const seconds of [1, 30]) {
    test(`is by what a session did use, not by what it was expected to: ${seconds} s against 200`, () => {
      const lab = new SchedulerLab(oneLane);
      const serve = (one: ReturnType<SchedulerLab['submit']>, forSeconds: number) => {
        for (let second = 0; second < forSeconds; second += 1) {
          lab.pass(1_000);
          leaseOf(one).progress('content');
        }
        leaseOf(one).end({ kind: 'ok' });
      };
      serve(lab.submit({ session: 'a' }), seconds);
      const long = lab.submit({ session: 'b' });
      const [ofB, ofA] = [lab.submit({ session: 'b' }), lab.submit({ session: 'a' })];
      serve(long, 200);
      assert.deepEqual([ofA.leases.length, ofB.leases.length], [1, 0]);
    });
  }
});

describe('hung turns', () => {
  test('lose their lane, are told why, and come back before those who wait', () => {
    const lab = new SchedulerLab(oneLane);
    const hung = lab.submit();
    const waiting = [lab.submit(), lab.submit()];
    lab.pass(120_000);
    assert.deepEqual(
      hung.hung.map(({ evidence: { cause, limitMs, committed, dryRun }, verdict }) => [
        cause,
        limitMs,
        committed,
        dryRun,
        verdict.action,
      ]),
      [['first-byte', 120_000, false, false, 'retry']],
    );
    assert.equal(waiting[0]?.leases.length, 1, 'the lane is not kept for it');
    lab.pass(1_000);
    leaseOf(waiting[0] as (typeof waiting)[0]).end({ kind: 'ok' });
    assert.equal(leaseOf(hung).attempt, 1);
    leaseOf(hung).end({ kind: 'ok' });
    const { reaped, retried, recovered, completed } = lab.scheduler.counters();
    assert.deepEqual([reaped, retried, recovered, completed], [1, 1, 1, 2]);
  });

  test('are not tried again once the client has seen a part', () => {
    const lab = new SchedulerLab();
    const one = lab.submit();
    leaseOf(one).progress('content');
    leaseOf(one).committed();
    lab.pass(120_000);
    assert.deepEqual(
      one.hung.map(({ verdict }) => verdict.action),
      ['fail'],
    );
  });

  test('are tried twice while nobody waits for their lanes, however many hang', () => {
    const lab = new SchedulerLab({ reaper: { firstByteMs: 30_000 } });
    const turns = [lab.submit(), lab.submit(), lab.submit()];
    lab.pass(200_000);
    for (const { hung } of turns) {
      assert.deepEqual(
        hung.map(({ verdict }) => verdict.action),
        ['retry', 'retry', 'fail'],
      );
    }
  });

  test('in a dry run they are only told of', () => {
    const lab = new SchedulerLab({ reaper: { dryRun: true } });
    const one = lab.submit();
    lab.pass(130_000);
    assert.deepEqual(
      one.hung.map(({ evidence, verdict }) => [evidence.dryRun, verdict.action]),
      [[true, 'watch']],
    );
    assert.equal(leaseOf(one).live, true);
    leaseOf(one).end({ kind: 'ok' });
    const { reaped, wouldReap } = lab.scheduler.counters();
    assert.deepEqual([reaped, wouldReap], [0, 1]);
  });

  test("not streaming, have the client's own time, of which the queue has taken a part", () => {
    const lab = new SchedulerLab(oneLane);
    const holder = leaseOf(lab.submit({ streaming: false }));
    const one = lab.submit({ streaming: false, clientTimeoutMs: 300_000 });
    lab.pass(200_000);
    holder.end({ kind: 'ok' });
    lab.pass(99_999);
    assert.equal(leaseOf(one).live, true);
    lab.pass(1);
    assert.deepEqual(
      one.hung.map(({ evidence, verdict }) => [evidence.cause, evidence.limitMs, verdict.action]),
      [['whole-response', 100_000, 'fail']],
    );
  });

  test('are none while their client is inside a frozen call, from the lease on or later', () => {
    const lab = new SchedulerLab({ retry: { most: 0 } });
    const frozen = lab.submit({ place: 7 });
    const beside = lab.submit({ place: 8 });
    lab.pass(100_000);
    lab.scheduler.setFrozen(new Set([7]));
    const later = lab.submit({ place: 7 });
    lab.pass(300_000);
    assert.deepEqual([frozen.hung.length, beside.hung.length, later.hung.length], [0, 1, 0]);
    lab.scheduler.setFrozen(new Set());
    lab.pass(19_000);
    assert.equal(frozen.hung.length, 0);
    lab.pass(2_000);
    assert.equal(frozen.hung[0]?.evidence.pausedMs, 300_000);
    lab.pass(100_000);
    assert.equal(later.hung.length, 1);
  });

  test('240 s in the queue are no silence', () => {
    const lab = new SchedulerLab(oneLane);
    const holder = leaseOf(lab.submit({ streaming: false }));
    const one = lab.submit();
    lab.pass(239_000);
    holder.end({ kind: 'ok' });
    lab.pass(119_000);
    assert.deepEqual([one.hung.length, leaseOf(one).live], [0, true]);
  });
});

describe('rate limits', () => {
  const limited = (perMin: object) => ({ limits: { configured: [{ perMin }] } });

  test('hold turns back until there is room, and not longer', () => {
    const lab = new SchedulerLab(limited({ requests: 2 }));
    const turns = [lab.submit(), lab.submit(), lab.submit()];
    for (const one of turns.slice(0, 2)) leaseOf(one).end({ kind: 'ok' });
    const third = turns[2] as (typeof turns)[0];
    lab.pass(59_000);
    assert.equal(third.leases.length, 0);
    lab.pass(2_000);
    assert.equal(third.leases.length, 1);
  });

  test('reserve what turns of the model usually write, not their max_tokens, and settle with usage', () => {
    const lab = new SchedulerLab({
      limits: { outputTokens: 400, configured: [{ perMin: { outputTokens: 1_500 } }] },
    });
    const output = () => lab.upstream.buckets.find(({ resource }) => resource === 'outputTokens');
    const first = leaseOf(lab.submit());
    // A mean of 400, and its deviation on top.
    assert.equal(Math.round(output()?.reserved ?? 0), 694);
    const second = lab.submit();
    const third = lab.submit();
    assert.deepEqual([second.leases.length, third.leases.length], [1, 0]);
    first.usage({ outputTokens: 10 });
    first.end({ kind: 'ok' });
    assert.equal(third.leases.length, 1, 'what was not written is free again');
    assert.equal(lab.upstream.expectedOutputTokens, 205, 'and the next are expected to write less');
  });

  test('count what a long answer has written while it is still being written', () => {
    const lab = new SchedulerLab(limited({ outputTokens: 10_000 }));
    leaseOf(lab.submit()).usage({ outputTokens: 8_000 });
    assert.equal(lab.submit().leases.length, 0);
  });

  test('a large turn of a lower level does not hold up a better one, and is not passed by for ever', () => {
    const lab = new SchedulerLab({ ...limited({ inputTokens: 10_000 }), queue: { maxWaitMs: 1e9 } });
    leaseOf(lab.submit({ inputTokens: 5_000 })).end({ kind: 'ok' });
    const large = lab.submit({ class: 'background', inputTokens: 9_000, session: 'large' });
    for (let second = 0; second < 400 && large.leases.length === 0; second += 1) {
      const small = lab.submit({ inputTokens: 60 });
      if (second < 290) assert.equal(small.leases.length, 1, `at ${second} s`);
      small.leases[0]?.end({ kind: 'ok' });
      lab.pass(1_000);
    }
    assert.equal(large.leases.length, 1);
    assert.ok(leaseOf(large).waitedMs >= 300_000 && leaseOf(large).waitedMs < 370_000);
  });

  test('a limit that background turns wait for is handed out evenly to them, not to users', () => {
    const lab = new SchedulerLab(limited({ requests: 60 }));
    const background = Array.from({ length: 80 }, () => lab.submit({ class: 'background' }));
    const served = () => background.filter(({ leases }) => leases.length > 0).length;
    for (const { leases } of background) leases[0]?.end({ kind: 'ok' });
    assert.equal(served(), 60);
    // All 60 are there again after 61 s.
    lab.pass(66_000);
    assert.ok(served() > 62 && served() < 75, `${served()}: not all of the minute at once`);
    const users = Array.from({ length: 10 }, () => lab.submit());
    assert.equal(users.filter(({ leases }) => leases.length > 0).length, 10);
  });

  test('when nobody waits any more, what there is goes at once again', () => {
    const lab = new SchedulerLab(limited({ requests: 60 }));
    const served = (count: number) => {
      const turns = Array.from({ length: count }, () => lab.submit());
      for (const { leases } of turns) leases[0]?.end({ kind: 'ok' });
      return turns;
    };
    const last = served(61).at(-1);
    lab.pass(61_000);
    assert.ok(last);
    leaseOf(last).end({ kind: 'ok' });
    assert.equal(served(40).filter(({ leases }) => leases.length > 0).length, 40);
  });

  for (const [what, changes, poolShort] of [
    ['memory', {}, true],
    ['lanes', { lanes: { fixed: 2 } }, false],
  ] as const) {
    test(`what waits for ${what} keeps no user's turn waiting that fits`, () => {
      const lab = new SchedulerLab({ ...limited({ inputTokens: 60_000 }), ...changes });
      lab.scheduler.setHostPressure({ memory: 0, poolShort });
      leaseOf(lab.submit({ inputTokens: 40_000 })).end({ kind: 'ok' });
      const background = () => lab.submit({ class: 'background', inputTokens: 100, session: 'b' });
      const running = background();
      const large = lab.submit({ inputTokens: 45_000 });
      const waiting = [background(), background()];
      assert.deepEqual([running.leases.length, large.leases.length], [1, 0]);
      lab.pass(62_000);
      assert.equal(large.leases.length, 1);
      const small = lab.submit({ inputTokens: 5_000 });
      leaseOf(large).end({ kind: 'ok' });
      assert.equal(small.leases.length, 1);
      assert.deepEqual(
        waiting.map(({ leases }) => leases.length),
        [0, 0],
      );
    });
  }

  test('a minute in which every turn fitted is the end of it, although turns wait for lanes', () => {
    const lab = new SchedulerLab({ ...limited({ inputTokens: 60_000 }), lanes: { fixed: 1 } });
    leaseOf(lab.submit({ inputTokens: 50_000 })).end({ kind: 'ok' });
    const [long, ...next] = [40_000, 20_000, 20_000, 100].map((inputTokens) => lab.submit({ inputTokens }));
    assert.ok(long);
    lab.pass(62_000);
    // Its input counts from now on, and not when it ends.
    leaseOf(long).headers(headers({}), 200);
    lab.pass(70_000);
    leaseOf(long).end({ kind: 'ok' });
    for (const one of next) leaseOf(one).end({ kind: 'ok' });
  });

  test('background turns leave a fifth of a limit to the others, as long as there are any', () => {
    const alone = new SchedulerLab(limited({ requests: 10 }));
    const all = Array.from({ length: 10 }, () => alone.submit({ class: 'background' }));
    assert.equal(all.filter(({ leases }) => leases.length > 0).length, 10);
    const lab = new SchedulerLab(limited({ requests: 10 }));
    leaseOf(lab.submit());
    const background = Array.from({ length: 10 }, () => lab.submit({ class: 'background' }));
    assert.equal(background.filter(({ leases }) => leases.length > 0).length, 7);
    assert.equal(lab.submit().leases.length, 1);
  });

  test('Retry-After keeps the whole upstream quiet for so long', () => {
    const lab = new SchedulerLab();
    const one = lab.submit();
    assert.equal(leaseOf(one).end(turnedAway({ 'retry-after': '7' })).action, 'retry');
    const other = lab.submit({ session: 's2' });
    lab.pass(6_999);
    assert.deepEqual([one.leases.length, other.leases.length], [1, 0]);
    lab.pass(1_000);
    assert.deepEqual([one.leases.length, other.leases.length], [2, 1]);
  });

  test('without a Retry-After the pauses grow until something is answered', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 } });
    const one = lab.submit();
    const waits: number[] = [];
    for (let n = 0; n < 4; n += 1) {
      const had = one.leases.length;
      leaseOf(one).end({ kind: 'error', status: 529 });
      const before = lab.clock.now();
      while (one.leases.length === had) lab.pass(1);
      waits.push(lab.clock.now() - before);
    }
    assert.deepEqual(waits, [500, 1_000, 2_000, 4_000]);
    assert.equal(lab.scheduler.counters().overloaded, 4);
  });

  test('a used-up quota opens the breaker: those who wait are told, then one turn tries', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 } });
    const one = lab.submit();
    const waiting = lab.submit();
    const verdict = leaseOf(one).end({ ...turnedAway(), quotaExhausted: true });
    assert.equal(verdict.action, 'fail');
    assert.deepEqual(
      waiting.refusals.map(({ code, shouldRetry }) => [code, shouldRetry]),
      [['quota', false]],
    );
    lab.pass(30_000);
    assert.deepEqual(
      lab.submit().refusals.map(({ code, retryAfterMs }) => [code, retryAfterMs]),
      [['quota', 30_000]],
    );
    assert.equal(lab.submit({ credential: 'c2' }).leases.length, 1, 'other accounts go on');
    lab.pass(30_000);
    const probe = lab.submit();
    assert.equal(probe.leases.length, 1);
    assert.deepEqual(
      lab.submit().refusals.map(({ code }) => code),
      ['quota'],
      'one at a time',
    );
    leaseOf(probe).end({ kind: 'ok' });
    assert.equal(lab.submit().leases.length, 1);
  });

  test('a Retry-After of minutes is a used-up quota', () => {
    const lab = new SchedulerLab();
    leaseOf(lab.submit()).end(turnedAway({ 'retry-after': '1800' }));
    assert.deepEqual(
      lab.submit().refusals.map(({ code, retryAfterMs }) => [code, retryAfterMs]),
      [['quota', 1_800_000]],
    );
  });

  test('a Retry-After of a day is tried by one turn after five minutes; clients are told what was said', () => {
    const lab = new SchedulerLab();
    leaseOf(lab.submit()).end(turnedAway({ 'retry-after': '86400' }));
    lab.pass(299_000);
    assert.deepEqual(
      lab.submit().refusals.map(({ code, retryAfterMs }) => [code, retryAfterMs]),
      [['quota', 86_400_000 - 299_000]],
    );
    lab.pass(2_000);
    const probe = lab.submit();
    assert.equal(probe.leases.length, 1);
    assert.equal(lab.submit().leases.length, 0);
    leaseOf(probe).end({ kind: 'ok' });
    assert.equal(lab.submit().leases.length, 1);
  });

  test('an overloaded upstream is left alone for a minute, whatever it asks for, also after a restart', () => {
    const lab = new SchedulerLab();
    leaseOf(lab.submit()).end({ kind: 'error', status: 529, headers: headers({ 'retry-after': '86400' }) });
    const waiting = lab.submit();
    const saved = lab.scheduler.save();
    lab.pass(59_000);
    assert.deepEqual([waiting.leases.length, waiting.refusals.length], [0, 0]);
    lab.pass(1_000);
    assert.equal(waiting.leases.length, 1);
    const [upstream] = saved.upstreams;
    assert.ok(upstream);
    const day = { ...upstream, pausedUntilWallMs: saved.savedAtWallMs + 86_400_000 };
    const after = new SchedulerLab({}, { saved: { ...saved, upstreams: [day] } });
    const one = after.submit();
    after.pass(60_000);
    assert.equal(one.leases.length, 1, 'what was saved of a time that was set back');
  });

  test("what is told in a turn's answer is not counted once more for the turn", () => {
    const lab = new SchedulerLab(limited({ requests: 10 }));
    leaseOf(lab.submit()).headers(
      headers({ 'x-ratelimit-limit-requests': '10', 'x-ratelimit-remaining-requests': '9' }),
      200,
    );
    const [requests] = lab.upstream.buckets;
    assert.deepEqual([requests?.available, requests?.reserved], [9, 0]);
  });

  test('lies in headers are counted and change nothing', () => {
    const lab = new SchedulerLab();
    const lease = leaseOf(lab.submit());
    lease.headers(
      headers({ 'x-ratelimit-limit-requests': '0', 'x-ratelimit-remaining-requests': '-1' }),
      200,
    );
    assert.equal(lab.scheduler.counters().badHeaders, 2);
    assert.equal(lab.submit().leases.length, 1);
  });

  test('a session that has used up its budget is refused; others are not', () => {
    const lab = new SchedulerLab({ limits: { sessionTokens: 1_500 } });
    const lease = leaseOf(lab.submit());
    lease.usage({ inputTokens: 1_000 });
    lease.usage({ outputTokens: 500 });
    lease.end({ kind: 'ok' });
    assert.deepEqual(
      lab.submit().refusals.map(({ code, status }) => `${code} ${status}`),
      ['session-budget 429'],
    );
    assert.equal(lab.submit({ session: 's2' }).leases.length, 1);
  });
});

describe('retries', () => {
  test("the proxy's and the client's do not multiply: the same request again has none left", () => {
    const lab = new SchedulerLab();
    const one = lab.submit({ bodyHash: () => 'same' });
    for (let n = 0; n < 2; n += 1) {
      assert.equal(leaseOf(one).end({ kind: 'error', status: 500 }).action, 'retry');
      lab.pass(10_000);
    }
    const verdict = leaseOf(one).end({ kind: 'error', status: 500 });
    assert.deepEqual(verdict.action === 'fail' && verdict.shouldRetry, false);
    const again = lab.submit({ bodyHash: () => 'same' });
    assert.equal(leaseOf(again).end({ kind: 'error', status: 500 }).action, 'fail');
    assert.equal(
      leaseOf(lab.submit({ bodyHash: () => 'other' })).end({ kind: 'error', status: 500 }).action,
      'retry',
    );
  });

  test('a client that goes while its turn waits for a retry takes it along', () => {
    const lab = new SchedulerLab();
    const one = lab.submit();
    leaseOf(one).end({ kind: 'error', status: 500 });
    one.ticket.cancel();
    lab.pass(60_000);
    assert.deepEqual([one.leases.length, one.refusals[0]?.code], [1, 'cancelled']);
  });
});

describe('the host', () => {
  test('short of memory, lets one background turn go at a time; users notice nothing', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 10 } });
    lab.scheduler.setHostPressure({ memory: 0, poolShort: true });
    const background = Array.from({ length: 3 }, () => lab.submit({ class: 'background' }));
    assert.deepEqual(
      background.map(({ leases }) => leases.length),
      [1, 0, 0],
    );
    assert.equal(lab.submit().leases.length, 1);
    assert.equal(lab.submit({ class: 'subagent', agent: 'a' }).leases.length, 1);
    lab.scheduler.setHostPressure({ memory: 0, poolShort: false });
    assert.deepEqual(
      background.map(({ leases }) => leases.length),
      [1, 1, 1],
    );
  });

  test('under pressure background turns have the fewer lanes the harder it is', () => {
    const held = (memory: number) => {
      const lab = new SchedulerLab({ lanes: { fixed: 10 } });
      lab.scheduler.setHostPressure({ memory, poolShort: false });
      const turns = Array.from({ length: 10 }, () => lab.submit({ class: 'background' }));
      return turns.filter(({ leases }) => leases.length > 0).length;
    };
    assert.deepEqual([held(0.1), held(0.25), held(0.4), held(1), held(Number.NaN)], [10, 5, 1, 1, 10]);
  });

  test('does not keep background turns for ever', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 10 }, queue: { maxWaitMs: 1e9 } });
    lab.scheduler.setHostPressure({ memory: 1, poolShort: true });
    leaseOf(lab.submit({ class: 'background', streaming: false }));
    const others = [lab.submit({ class: 'background' }), lab.submit({ class: 'background' })];
    const held = () => others.map(({ leases }) => leases.length);
    lab.pass(299_999);
    assert.deepEqual(held(), [0, 0]);
    lab.pass(1);
    assert.deepEqual(held(), [1, 1]);
  });
});

describe('a restart', () => {
  test('loses neither budgets, places, limits nor pauses', () => {
    const before = new SchedulerLab({ lanes: { start: 4 }, limits: { sessionTokens: 1_000 } });
    const spent = leaseOf(before.submit({ session: 'spent' }));
    spent.headers(
      headers({ 'x-ratelimit-limit-requests': '100', 'x-ratelimit-remaining-requests': '40' }),
      200,
    );
    spent.usage({ inputTokens: 900, outputTokens: 100 });
    spent.end({ kind: 'ok' });
    for (let n = 0; n < 5; n += 1) before.submit({ session: `s${n}`, bodyHash: () => `b-${n}` });
    before.pass(20_000);
    leaseOf(before.submit({ session: 'x', modelClass: 'opus' })).end(turnedAway({ 'retry-after': '60' }));
    const saved = JSON.parse(JSON.stringify(before.scheduler.save()));

    // The clock of the new process starts anew, five seconds later by the time of day.
    const changes = { lanes: { fixed: 1 }, limits: { sessionTokens: 1_000 } };
    const after = new SchedulerLab(changes, { saved }, 25_000);
    assert.deepEqual(
      after.submit({ session: 'spent' }).refusals.map(({ code }) => code),
      ['session-budget'],
    );
    const { upstreams } = after.scheduler.snapshot();
    const opus = upstreams.find(({ modelClass }) => modelClass === 'opus');
    const requests = upstreams.find(({ modelClass }) => modelClass === 'sonnet')?.buckets[0];
    assert.deepEqual([requests?.limitPerMin, Math.round(requests?.available ?? 0)], [100, 69]);
    assert.ok((opus?.pausedUntilMs ?? 0) > 39_000);
    const holder = leaseOf(after.submit({ session: 'new' }));
    const newcomer = after.submit({ session: 'newer' });
    const waited = after.submit({ session: 's4', bodyHash: () => 'b-4' });
    holder.end({ kind: 'ok' });
    assert.deepEqual([waited.leases.length, newcomer.leases.length], [1, 0]);
    assert.equal(after.scheduler.counters().placesKept, 1);
  });
});

describe('snapshot', () => {
  test('shows lanes, levels, buckets and turns', () => {
    const lab = new SchedulerLab({
      lanes: { fixed: 1 },
      limits: { configured: [{ perMin: { requests: 60 } }] },
    });
    lab.submit({ id: 'running' });
    lab.pass(500);
    lab.submit({ id: 'waiting', class: 'background', session: 's2', agent: 'a1' });
    lab.pass(1_500);
    const { queued, running, delayed, upstreams } = lab.scheduler.snapshot();
    assert.deepEqual([queued, running, delayed, upstreams.length], [1, 1, 0, 1]);
    const [upstream] = upstreams;
    assert.deepEqual(upstream?.lanes, { held: 1, limit: 1, fixed: true });
    assert.deepEqual(
      upstream?.levels.map(({ level, queued: waits, running: runs, oldestWaitMs }) => [
        level,
        waits,
        runs,
        oldestWaitMs,
      ]),
      [
        ['interactive', 0, 1, 0],
        ['subagent', 0, 0, 0],
        ['background', 1, 0, 1_500],
      ],
    );
    assert.deepEqual(upstream?.buckets[0], {
      resource: 'requests',
      limitPerMin: 60,
      available: 59,
      reserved: 1,
    });
    assert.deepEqual(
      upstream?.turns.map(({ turn: id, state, agent, attempt, sinceMs }) => [
        id,
        state,
        agent,
        attempt,
        sinceMs,
      ]),
      [
        ['running', 'running', null, 0, 2_000],
        ['waiting', 'queued', 'a1', 0, 1_500],
      ],
    );
  });
});

test('the defaults are complete, so that a scheduler needs no settings', () => {
  const { clock } = new SchedulerLab();
  const scheduler = new Scheduler({ clock, random: () => 0 });
  assert.deepEqual(scheduler.snapshot().upstreams, []);
  assert.deepEqual(settings(), settings({ lanes: {} }));
});
