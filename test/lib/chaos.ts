// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import type { AgentSnapshot } from '../../daemon/scheduler/snapshot.ts';
import { TURN_CLASSES } from '../../daemon/scheduler/types.ts';
import { generator } from '../../daemon/sim/random.ts';
import { SchedulerLab, type Told } from './scheduler.ts';

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

/** Limits that are met all the time. */
export const chaosSettings = {
  lanes: { start: 6, most: 8 },
  queue: { maxTurns: 40, maxTurnsOfSession: 15 },
  limits: {
    configured: [
      { provider: 'anthropic', perMin: { requests: 60, inputTokens: 50_000, outputTokens: 20_000 } },
    ],
  },
};

/** Drives a scheduler with chance and checks after each step what must always hold. */
export class Chaos {
  readonly lab: SchedulerLab;
  readonly #random: () => number;
  readonly #turns: Told[] = [];
  readonly #quotaShare: number;

  /** @param quotaShare of such errors that are let happen: each keeps all turns of its upstream away for a minute */
  constructor(seed: number, quotaShare = 0.1) {
    this.#random = generator(seed);
    this.#quotaShare = quotaShare;
    // Every other one with a limit of agents, which end by their answer or because nobody goes on with them.
    const agents = { running: seed % 2 === 0 ? 3 : Number.POSITIVE_INFINITY, abandonedMs: 60_000 };
    this.lab = new SchedulerLab({ ...chaosSettings, agents }, { random: () => this.#random() });
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
        lease?.headers((name) => this.#header(name), this.#pick([200, 400, 429, 529]));
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
        if (this.#random() < this.#quotaShare)
          lease?.end({ kind: 'error', status: 429, quotaExhausted: true });
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
    // And when the debts of turns that used more than was expected are paid, every bucket is full; looked at within
    // each minute, as by who saves the state: a bucket that is left alone forgets.
    for (let minutes = 0; minutes < 1_440; minutes += 0.5) {
      this.lab.pass(30_000);
      this.lab.scheduler.snapshot();
    }
    for (const { provider, buckets } of this.lab.scheduler.snapshot().upstreams) {
      for (const { resource, limitPerMin, available } of buckets) {
        assert.equal(available, limitPerMin, `${provider} ${resource}: ${available}`);
      }
    }
    this.lab.scheduler.close();
    assert.equal(this.lab.clock.timers, 0);
  }

  #submit(): Told {
    const hash = `b${this.#whole(30)}`;
    return this.lab.submit({
      session: `s${this.#whole(5)}`,
      owner: `o${this.#whole(3)}`,
      provider: this.#pick(['anthropic', 'openai']),
      class: this.#pick(TURN_CLASSES),
      runStart: this.#random() < 0.3,
      streaming: this.#random() < 0.8,
      retryable: this.#random() < 0.8,
      inputTokens: this.#whole(this.#random() < 0.02 ? 80_000 : 3_000),
      bodyHash: () => hash,
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
