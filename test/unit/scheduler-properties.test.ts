// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Discipline } from '../../daemon/scheduler/queue.ts';
import { Scheduler } from '../../daemon/scheduler/scheduler.ts';
import { type AgentSnapshot, RESOURCES, TURN_CLASSES } from '../../daemon/scheduler/types.ts';
import { FifoQueue } from '../../daemon/sim/baselines.ts';
import { generator } from '../../daemon/sim/random.ts';
import { fairLoad } from '../lib/fair-load.ts';
import { leaseOf, SchedulerLab, settings, type Told } from '../lib/scheduler.ts';

/** What may happen to a turn, or to the world. */
const EVENTS = [
  'submit',
  'submit',
  'submit',
  'ok',
  'ok',
  'headers',
  'content',
  'ping',
  'commit',
  'pause',
  'resume',
  'usage',
  'cancel',
  'error-500',
  'error-cut',
  'error-429',
  'error-429-after',
  'error-quota',
  'owner-dies',
  'pressure',
  'calls',
  'pass',
  'pass-long',
] as const;

const settingsUnderTest = {
  lanes: { start: 6, most: 8 },
  queue: { maxTurns: 40, maxTurnsOfSession: 15 },
  limits: {
    configured: [
      { provider: 'anthropic', perMin: { requests: 60, inputTokens: 50_000, outputTokens: 20_000 } },
    ],
  },
};

/** Drives a scheduler with chance and checks after each step what must always hold. */
class Chaos {
  readonly lab: SchedulerLab;
  readonly #random: () => number;
  readonly #turns: Told[] = [];

  constructor(seed: number) {
    this.#random = generator(seed);
    // Every other one with a limit of agents, which end by their answer or because nobody goes on with them.
    const agents = { running: seed % 2 === 0 ? 3 : Number.POSITIVE_INFINITY, abandonedMs: 60_000 };
    this.lab = new SchedulerLab({ ...settingsUnderTest, agents }, { random: () => this.#random() });
  }

  step(): void {
    const { lab } = this;
    const event = this.#pick(EVENTS);
    const one = this.#turns.length === 0 ? undefined : this.#pick(this.#turns);
    const lease = one?.leases.at(-1);
    switch (event) {
      case 'submit':
        this.#turns.push(this.#submit());
        break;
      case 'ok':
        lease?.end({ kind: 'ok', endsRun: this.#random() < 0.5 });
        break;
      case 'headers':
        lease?.headers((name) => this.#header(name));
        break;
      case 'content':
      case 'ping':
        lease?.progress(event);
        break;
      case 'commit':
        lease?.committed();
        break;
      case 'pause':
      case 'resume':
        lease?.[event](this.#pick(['back-pressure', 'frozen']));
        break;
      case 'usage':
        lease?.usage({ inputTokens: this.#whole(3_000), outputTokens: this.#whole(2_000) });
        break;
      case 'cancel':
        one?.ticket.cancel();
        break;
      case 'error-500':
        lease?.end({ kind: 'error', status: 500 });
        break;
      case 'error-cut':
        lease?.end({ kind: 'error', status: null });
        break;
      case 'error-429':
        lease?.end({ kind: 'error', status: this.#pick([429, 529]) });
        break;
      case 'error-429-after':
        lease?.end({ kind: 'error', status: 429, headers: () => `${this.#whole(90)}` });
        break;
      case 'error-quota':
        if (this.#random() < 0.1) lease?.end({ kind: 'error', status: 429, quotaExhausted: true });
        break;
      case 'owner-dies':
        if (this.#random() < 0.1) lab.scheduler.endOwner(`o${this.#whole(3)}`);
        break;
      case 'pressure':
        lab.scheduler.setHostPressure({ memory: this.#random(), poolShort: this.#random() < 0.3 });
        break;
      case 'calls': {
        const live = this.#whole(2);
        const calls = this.#random() < 0.2 ? null : { live, frozen: this.#whole(live) };
        lab.scheduler.setCalls(`s${this.#whole(5)}`, calls);
        break;
      }
      case 'pass':
        lab.pass(this.#whole(3_000));
        break;
      case 'pass-long':
        if (this.#random() < 0.2) lab.pass(this.#whole(200_000));
        break;
    }
    if (this.#turns.length > 200) this.#turns.splice(0, 100);
  }

  check(): void {
    const { scheduler } = this.lab;
    const { upstreams, queued, running, delayed, gated, held: kept, agents } = scheduler.snapshot();
    assert.ok(agents.running <= (agents.limit ?? 0) && gated + kept <= queued);
    assert.equal(agents.waiting > 0, gated > 0);
    assert.ok(gated === 0 || agents.running === agents.limit, 'a place is free, and somebody waits for it');
    const sessions = [...scheduler.agents()];
    const sum = (of: (agent: AgentSnapshot) => number) => sessions.reduce((all, one) => all + of(one), 0);
    assert.equal(
      sum((agent) => agent.running),
      running,
    );
    assert.equal(
      sum((agent) => agent.waiting),
      queued + delayed,
    );
    for (const { session, calls, runs, terminated, waiting, running: busy } of sessions) {
      const alive = waiting + busy + (calls?.live ?? 0) > 0;
      assert.ok(!(terminated && alive), `${session} is over and alive`);
      assert.ok(!terminated || runs.length === 0);
    }
    let held = 0;
    for (const upstream of upstreams) {
      held += upstream.lanes.held;
      assert.ok(upstream.lanes.limit >= 1 && upstream.lanes.limit <= 8);
      assert.equal(
        upstream.lanes.held,
        upstream.levels.reduce((sum, level) => sum + level.running, 0),
      );
      const states = upstream.turns.map(({ state }) => state);
      assert.equal(upstream.lanes.held, states.filter((state) => state === 'running').length);
      for (const { reserved } of upstream.buckets) assert.ok(reserved >= 0);
      if (upstream.lanes.held === 0) {
        for (const { resource, reserved } of upstream.buckets) assert.equal(reserved, 0, resource);
      }
    }
    assert.equal(held, running);
    // What had a lane comes back to the queue however full it is.
    assert.ok(queued <= 40 + 16);
    const { submitted, completed, failed, aborted, refused } = scheduler.counters();
    const over = completed + failed + aborted + Object.values(refused).reduce((sum, count) => sum + count, 0);
    assert.equal(submitted, over + queued + running + delayed, 'every turn is somewhere, and in one place');
    for (const { leases, refusals } of this.#turns) {
      assert.ok(refusals.length <= 1);
      assert.ok(leases.filter(({ live }) => live).length <= 1);
      assert.ok(refusals.length === 0 || leases.every(({ live }) => !live));
    }
  }

  /** Everybody goes: then nothing may be left. */
  finish(): void {
    for (const { ticket } of this.#turns) ticket.cancel();
    for (let owner = 0; owner <= 3; owner += 1) this.lab.scheduler.endOwner(`o${owner}`);
    this.check();
    const { queued, running, delayed } = this.lab.scheduler.snapshot();
    assert.deepEqual([queued, running, delayed], [0, 0, 0]);
    for (let session = 0; session <= 5; session += 1) this.lab.scheduler.setCalls(`s${session}`, null);
    this.lab.pass(60_000);
    assert.deepEqual([this.lab.scheduler.snapshot().agents.running, this.lab.clock.timers], [0, 0]);
    for (const { terminated } of this.lab.scheduler.agents()) assert.ok(terminated);
    // And when the debts of turns that used more than was expected are paid, every bucket is full.
    this.lab.pass(86_400_000);
    for (const { provider, buckets } of this.lab.scheduler.snapshot().upstreams) {
      for (const { resource, limitPerMin, available } of buckets) {
        assert.equal(available, limitPerMin, `${provider} ${resource}`);
      }
    }
    this.lab.scheduler.close();
    assert.equal(this.lab.clock.timers, 0);
  }

  #submit(): Told {
    return this.lab.submit({
      session: `s${this.#whole(5)}`,
      owner: `o${this.#whole(3)}`,
      provider: this.#pick(['anthropic', 'openai']),
      class: this.#pick(TURN_CLASSES),
      runStart: this.#random() < 0.3,
      streaming: this.#random() < 0.8,
      retryable: this.#random() < 0.8,
      inputTokens: this.#whole(this.#random() < 0.02 ? 80_000 : 3_000),
      bodyHash: `b${this.#whole(30)}`,
    });
  }

  /** Headers of an upstream that mostly tells the truth. */
  #header(name: string): string | undefined {
    if (!name.startsWith('anthropic')) return undefined;
    if (this.#random() < 0.1) return this.#pick(['-1', '0', 'many']);
    if (name.endsWith('limit')) return '1000';
    return name.endsWith('remaining') ? `${this.#whole(1_000)}` : undefined;
  }

  #whole(most: number): number {
    return Math.floor(this.#random() * (most + 1));
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random() * from.length)] as T;
  }
}

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
    assert.ok(greedy.jain >= 0.95, `${greedy.jain}: ${greedy.tokens}`);
    assert.ok(greedy.othersP95Ms <= 1.2 * calm.othersP95Ms, `${greedy.othersP95Ms}, ${calm.othersP95Ms}`);
    // That is not so of itself.
    assert.ok(run(40, () => new FifoQueue()).jain < 0.5);
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
      lease.headers(headers());
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
    settings: settings(settingsUnderTest),
  });
  assert.deepEqual(scheduler.counters().refused['queue-full'], 0);
  assert.deepEqual(RESOURCES, ['requests', 'inputTokens', 'outputTokens']);
});
