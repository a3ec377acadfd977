// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Discipline } from '../../daemon/scheduler/queue.ts';
import { RESOURCES } from '../../daemon/scheduler/resources.ts';
import { Scheduler } from '../../daemon/scheduler/scheduler.ts';
import { TURN_CLASSES } from '../../daemon/scheduler/types.ts';
import { FifoQueue } from '../../daemon/sim/baselines.ts';
import { generator } from '../../daemon/sim/random.ts';
import { Chaos, chaosSettings } from '../lib/chaos.ts';
import { fairLoad } from '../lib/fair-load.ts';
import { leaseOf, SchedulerLab, settings, type Told } from '../lib/scheduler.ts';

describe('whatever happens', () => {
  test('10⁵ random events leak no lane and let no bucket drift', () => {
    let events = 0;
    const seen = {
      abandoned: 0,
      held: 0,
      reaped: 0,
      retried: 0,
      aborted: 0,
      completed: 0,
      rateLimited: 0,
      recovered: 0,
    };
    for (let seed = 1; seed <= 50; seed += 1) {
      const chaos = new Chaos(seed);
      for (let step = 0; step < 2_000; step += 1) {
        chaos.step();
        events += 1;
        if (step % 10 === 0) chaos.check();
      }
      chaos.finish();
      const counters = chaos.lab.scheduler.counters();
      for (const key of Object.keys(seen) as (keyof typeof seen)[]) seen[key] += counters[key];
    }
    assert.equal(events, 100_000);
    // The chance is such that all of it came about.
    for (const [what, count] of Object.entries(seen)) assert.ok(count > 20, `${what}: ${count}`);
  });

  test('no turn waits over the bound, and none that is healthy is ended', () => {
    const arrival = fc.record({
      afterMs: fc.integer({ min: 0, max: 4_000 }),
      serviceMs: fc.integer({ min: 100, max: 60_000 }),
      class: fc.constantFrom(...TURN_CLASSES),
      session: fc.constantFrom('a', 'b', 'c'),
    });
    fc.assert(
      fc.property(fc.array(arrival, { minLength: 1, maxLength: 120 }), (arrivals) => {
        const lab = new SchedulerLab({ lanes: { fixed: 2 } });
        const turns = arrivals.map(({ afterMs, serviceMs, ...changes }) => {
          lab.pass(afterMs);
          const submittedAtMs = lab.clock.now();
          const one = lab.submit(changes);
          serveWhenGranted(lab, one, serviceMs);
          return { one, submittedAtMs };
        });
        lab.pass(1e6);
        for (const { one } of turns) {
          assert.equal(one.hung.length, 0);
          assert.equal(one.leases.length + one.refusals.length, 1);
          assert.ok(one.leases.every(({ waitedMs }) => waitedMs <= 240_000));
        }
        assert.equal(lab.scheduler.snapshot().running, 0);
      }),
      { numRuns: 60 },
    );
  });

  test('with clients that come back, who has waited 300 s is next but for three: none starves', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 }, queue: { maxWaitMs: Number.POSITIVE_INFINITY } });
    const background = Array.from({ length: 10 }, () => lab.submit({ class: 'background', session: 'b' }));
    // Users who always have something waiting, and take all that strides leave them.
    let users = 0;
    const feed = () => {
      const user = lab.submit({ session: `u${users % 7}` });
      users += 1;
      serveWhenGranted(lab, user, 10_000, feed);
    };
    for (let n = 0; n < 40; n += 1) feed();
    for (const one of background) serveWhenGranted(lab, one, 10_000);
    lab.pass(1_000_000);
    const waits = background.map((one) => leaseOf(one).waitedMs);
    // The n-th is served at the latest n times four turns after the bound.
    waits.forEach((waitedMs, n) => {
      assert.ok(waitedMs <= 300_000 + 10_000 + n * 40_000, `${n}: ${waitedMs}`);
    });
  });
});

describe('one greedy agent among nine others, who all want more than there is', () => {
  const run = (firstAgentTurns: number, discipline?: () => Discipline) =>
    fairLoad({ firstAgentTurns, seed: 1, minutes: 30, ...(discipline === undefined ? {} : { discipline }) });

  test('gets no more than they do, and makes none wait longer', () => {
    const calm = run(2);
    const greedy = run(40);
    assert.ok(greedy.jain >= 0.95, `${greedy.jain}: ${greedy.served}`);
    assert.ok(greedy.othersP95Ms <= 1.2 * calm.othersP95Ms, `${greedy.othersP95Ms}, ${calm.othersP95Ms}`);
    // That is not so of itself.
    assert.ok(run(40, () => new FifoQueue()).jain < 0.5);
  });

  test('nor where it is requests that are short, and a minute holds more of them than are under way', () => {
    const under = (firstAgentTurns: number) =>
      fairLoad({ firstAgentTurns, seed: 1, minutes: 30, short: 'requests' });
    const calm = under(2);
    const greedy = under(20);
    assert.ok(greedy.jain >= 0.95, `${greedy.jain}: ${greedy.served}`);
    assert.ok(greedy.othersP95Ms <= 1.2 * calm.othersP95Ms, `${greedy.othersP95Ms}, ${calm.othersP95Ms}`);
  });
});

describe('limits of an upstream', () => {
  for (const agents of [11, 50]) {
    test(`storm: ${agents} agents on 50 requests a minute: hardly any 429, none of them with a client`, () => {
      const { sent, refused, failed, done } = storm(agents);
      assert.ok(done > 200, `${done}`);
      assert.ok(refused / sent <= 0.05, `${refused} of ${sent} turned away`);
      assert.equal(failed, 0);
    });
  }

  test('in no minute are the tokens of a limit passed by more than 5 %', () => {
    for (const seed of [1, 2, 3]) {
      const { limit, minutes, wrote } = writers(seed);
      const total = wrote.reduce((sum, { tokens }) => sum + tokens, 0);
      assert.ok(total > 0.8 * limit * minutes, `${total}: it must be the limit that slows them`);
      let inMinute = 0;
      let oldest = 0;
      for (const { atMs, tokens } of wrote) {
        inMinute += tokens;
        for (; (wrote[oldest]?.atMs ?? atMs) <= atMs - 60_000; oldest += 1)
          inMinute -= wrote[oldest]?.tokens ?? 0;
        assert.ok(inMinute <= 1.05 * limit, `${inMinute} of ${limit} at ${atMs}`);
      }
    }
  });
});

/** Agents that write more than their limit allows; each piece of it with its time. */
function writers(seed: number) {
  const random = generator(seed);
  const limit = 80_000;
  const minutes = 20;
  const lab = new SchedulerLab({
    limits: { configured: [{ perMin: { inputTokens: 1e6, outputTokens: limit } }] },
    queue: { maxWaitMs: Number.POSITIVE_INFINITY },
  });
  const wrote: { atMs: number; tokens: number }[] = [];
  const next = (agent: number) => {
    const one = lab.submit({ session: `a${agent}`, runStart: false });
    // Skewed as answers are: most are short, some are ten times the mean.
    const tokens = Math.min(8_000, 1 + Math.round(-600 * Math.log(1 - random())));
    whenGranted(lab, one, () => {
      // 100 tokens a second, with an estimate each second that is up to a tenth too low or too high.
      const estimate = 0.9 + 0.2 * random();
      const write = (done: number) => {
        leaseOf(one).usage({ outputTokens: done * estimate });
        const more = Math.min(100, tokens - done);
        lab.clock.setTimer(more * 10, () => {
          wrote.push({ atMs: lab.clock.now(), tokens: more });
          if (done + more < tokens) {
            write(done + more);
            return;
          }
          leaseOf(one).usage({ outputTokens: tokens });
          leaseOf(one).end({ kind: 'ok' });
          next(agent);
        });
      };
      write(0);
    });
  };
  for (let agent = 0; agent < 40; agent += 1) next(agent);
  lab.pass(minutes * 60_000);
  return { limit, minutes, wrote };
}

/** Agents that ask all the time, and an upstream with a token bucket that answers 429 and tells nothing before. */
function storm(agents: number): { sent: number; refused: number; failed: number; done: number } {
  const random = generator(agents);
  const lab = new SchedulerLab({}, { random });
  const counts = { sent: 0, refused: 0, failed: 0, done: 0 };
  const perMs = 50 / 60_000;
  let left = 50;
  let leftAtMs = 0;
  const headers = () => (name: string) => {
    if (name === 'x-ratelimit-limit-requests') return '50';
    if (name === 'x-ratelimit-remaining-requests') return `${Math.max(0, Math.floor(left))}`;
    return name === 'retry-after' && left < 1 ? `${Math.ceil((1 - left) / perMs / 1000)}` : undefined;
  };
  const next = (agent: number) => {
    const one = lab.submit({ session: `a${agent}`, runStart: false });
    const again = () => lab.clock.setTimer(random() * 2_000, () => next(agent));
    let served = 0;
    const serve = () => {
      const lease = one.leases[served];
      if (lease === undefined) {
        if (one.refusals.length > 0) {
          counts.failed += 1;
          again();
        } else {
          lab.clock.setTimer(50, serve);
        }
        return;
      }
      served += 1;
      counts.sent += 1;
      const nowMs = lab.clock.now();
      left = Math.min(50, left + (nowMs - leftAtMs) * perMs);
      leftAtMs = nowMs;
      const admitted = left >= 1;
      if (admitted) left -= 1;
      lease.headers(headers(), admitted ? 200 : 429);
      if (admitted) {
        lab.clock.setTimer(1_000 + random() * 5_000, () => {
          lease.end({ kind: 'ok' });
          counts.done += 1;
          again();
        });
        return;
      }
      counts.refused += 1;
      if (lease.end({ kind: 'error', status: 429, headers: headers() }).action === 'retry') serve();
      else {
        counts.failed += 1;
        again();
      }
    };
    serve();
  };
  for (let agent = 0; agent < agents; agent += 1) next(agent);
  lab.pass(600_000);
  return counts;
}

/** Serves a turn in small pieces once it has its lane. */
function serveWhenGranted(
  lab: SchedulerLab,
  one: Told,
  serviceMs: number,
  done: () => void = () => {},
): void {
  whenGranted(lab, one, () => {
    const lease = leaseOf(one);
    const serve = (leftMs: number) => {
      lease.progress('content');
      lab.clock.setTimer(Math.min(leftMs, 10_000), () => {
        if (leftMs > 10_000) {
          serve(leftMs - 10_000);
          return;
        }
        lease.end({ kind: 'ok' });
        done();
      });
    };
    serve(serviceMs);
  });
}

function whenGranted(lab: SchedulerLab, one: Told, then: () => void): void {
  if (one.leases.length > 0) then();
  else if (one.refusals.length === 0) lab.clock.setTimer(100, () => whenGranted(lab, one, then));
}

test('settings and resources have the same names everywhere', () => {
  const scheduler = new Scheduler({
    clock: new SchedulerLab().clock,
    random: () => 0,
    settings: settings(chaosSettings),
  });
  assert.deepEqual(scheduler.counters().refused['queue-full'], 0);
  assert.deepEqual(RESOURCES, ['requests', 'inputTokens', 'outputTokens']);
});
