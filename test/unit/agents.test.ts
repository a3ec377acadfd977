// SPDX-License-Identifier: Apache-2.0
// Sessions and runs in the scheduler: their life, their end, whose class they have, and how many may run.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { AbandonedEvidence, SchedulerEvents } from '../../daemon/scheduler/events.ts';
import type { AgentSnapshot } from '../../daemon/scheduler/snapshot.ts';
import type { Turn } from '../../daemon/scheduler/types.ts';
import { leaseOf, SchedulerLab } from '../lib/scheduler.ts';

const LIMIT_MS = 10_000;

function setUp(changes: ConstructorParameters<typeof SchedulerLab>[0] = {}, saved?: unknown) {
  const abandoned: AbandonedEvidence[] = [];
  const classes: string[] = [];
  const held: string[] = [];
  const events: SchedulerEvents = {
    onAbandoned: (evidence) => abandoned.push(evidence),
    onClass: (session, turnClass) => classes.push(`${session} ${turnClass}`),
    onHeld: ({ turn, class: turnClass }) => held.push(`held ${turn} ${turnClass}`),
    onHeldEnd: ({ turn }, heldMs) => held.push(`released ${turn} ${heldMs}`),
  };
  const { agents, ...rest } = changes;
  const options = saved === undefined ? { events } : { events, saved: saved as never };
  const lab = new SchedulerLab({ ...rest, agents: { abandonedMs: LIMIT_MS, ...agents } }, options);
  const agent = (session = 's1'): AgentSnapshot | undefined =>
    [...lab.scheduler.agents()].find((one) => one.session === session);
  /** A turn from its submission to its answer. */
  const serve = (endsRun?: boolean, turn: Partial<Turn> = {}) => {
    const lease = leaseOf(lab.submit(turn));
    lease.end({ kind: 'ok', ...(endsRun === undefined ? {} : { endsRun }) });
  };
  return { lab, abandoned, classes, held, agent, serve };
}

describe('a run', () => {
  test('goes on with answers that ask for tools, and ends with one that does not', () => {
    const { agent, serve } = setUp();
    serve(false);
    assert.deepEqual(agent()?.runs, [{ agent: null, ageMs: 0 }]);
    serve(undefined, { runStart: false });
    assert.equal(agent()?.runs.length, 1);
    serve(true, { runStart: false });
    assert.equal(agent()?.runs.length, 0);
  });

  test('is not ended by a small question to another model on the way', () => {
    const { agent, serve } = setUp();
    serve(false, { modelClass: 'opus' });
    serve(true, { modelClass: 'haiku' });
    assert.equal(agent()?.runs.length, 1);
    serve(true, { modelClass: 'sonnet', runStart: false });
    assert.equal(agent()?.runs.length, 0, 'a model that goes on with it may be another one');
  });

  test('that never had a lane is none when its client goes', () => {
    const { lab, agent } = setUp({ lanes: { fixed: 1 } });
    lab.submit({ session: 'other' });
    const waiting = lab.submit();
    assert.deepEqual([agent()?.waiting, agent()?.granted, agent()?.runs.length], [1, 0, 1]);
    waiting.ticket.cancel();
    assert.deepEqual([agent()?.waiting, agent()?.finished, agent()?.runs.length], [0, 1, 0]);
  });

  test('is abandoned after the time without turn, call and request, and not sooner', () => {
    const { lab, abandoned, agent, serve } = setUp();
    serve(false);
    lab.pass(LIMIT_MS - 1);
    assert.deepEqual([abandoned.length, agent()?.terminated], [0, false]);
    lab.pass(1);
    assert.deepEqual(abandoned, [
      {
        session: 's1',
        class: 'interactive',
        runs: 1,
        limitMs: LIMIT_MS,
        sinceTurnMs: LIMIT_MS,
        calls: null,
        holdsPlace: false,
        dryRun: false,
      },
    ]);
    assert.deepEqual([agent()?.terminated, agent()?.runs.length], [true, 0]);
    assert.equal(lab.scheduler.counters().abandoned, 1);
    assert.equal(lab.clock.timers, 0);
  });

  test('is waited for anew with each request, and not while a turn waits or runs', () => {
    const { lab, abandoned, serve } = setUp({ lanes: { fixed: 1 } });
    serve(false);
    lab.pass(LIMIT_MS - 1);
    serve(false, { runStart: false });
    lab.pass(LIMIT_MS - 1);
    const running = leaseOf(lab.submit({ runStart: false }));
    const waiting = lab.submit({ session: 's2' });
    lab.pass(3 * LIMIT_MS);
    assert.equal(abandoned.length, 0);
    running.end({ kind: 'ok', endsRun: false });
    leaseOf(waiting).end({ kind: 'ok', endsRun: false });
    lab.pass(LIMIT_MS);
    assert.deepEqual(
      abandoned.map(({ session }) => session),
      ['s1', 's2'],
    );
  });

  for (const frozen of [0, 1]) {
    test(`is kept by a tool call that ${frozen ? 'is frozen' : 'works'}, however long`, () => {
      const { lab, abandoned, serve, agent } = setUp();
      serve(false);
      lab.pass(LIMIT_MS / 2);
      lab.scheduler.setCalls('s1', { live: 1, frozen });
      lab.pass(100 * LIMIT_MS);
      lab.scheduler.setCalls('s1', { live: 2, frozen });
      assert.deepEqual(agent()?.calls, { live: 2, frozen });
      lab.scheduler.setCalls('s1', { live: 0, frozen: 0 });
      lab.pass(LIMIT_MS - 1);
      assert.equal(abandoned.length, 0, 'the time counts from the end of the last call');
      lab.pass(1);
      assert.deepEqual(abandoned[0]?.calls, { live: 0, noneForMs: LIMIT_MS });
      assert.equal(abandoned[0]?.sinceTurnMs, 101.5 * LIMIT_MS);
    });
  }

  test('calls that were there before its turns count, and what the node agent forgets does not', () => {
    const { lab, abandoned, serve } = setUp();
    lab.scheduler.setCalls('s1', { live: 1, frozen: 0 });
    serve(false);
    lab.pass(2 * LIMIT_MS);
    assert.equal(abandoned.length, 0);
    lab.scheduler.setCalls('s1', null);
    lab.pass(LIMIT_MS);
    assert.equal(abandoned[0]?.calls, null);
  });

  test('told again and again that it has no call it is abandoned all the same', () => {
    const { lab, abandoned, serve } = setUp();
    lab.scheduler.setCalls('s1', { live: 0, frozen: 0 });
    serve(false);
    for (let n = 0; n < 10; n += 1) {
      lab.pass(LIMIT_MS / 10);
      lab.scheduler.setCalls('s1', { live: 0, frozen: 0 });
    }
    assert.equal(abandoned.length, 1);
  });

  test("is kept by its session's other runs: a user's run waits for its subagents", () => {
    const { lab, abandoned, serve } = setUp();
    serve(false);
    for (let n = 0; n < 4; n += 1) {
      lab.pass(LIMIT_MS / 2);
      serve(false, { agent: 'a', class: 'subagent', runStart: false });
    }
    assert.equal(abandoned.length, 0);
    lab.pass(LIMIT_MS);
    assert.deepEqual([abandoned.length, abandoned[0]?.runs], [1, 2]);
  });

  test('in a dry run is told of once, and goes on', () => {
    const { lab, abandoned, serve, agent } = setUp({ reaper: { dryRun: true } });
    serve(false);
    lab.pass(5 * LIMIT_MS);
    assert.deepEqual(
      abandoned.map(({ dryRun }) => dryRun),
      [true],
    );
    assert.deepEqual([agent()?.runs.length, agent()?.terminated], [1, false]);
    const { abandoned: ended, wouldAbandon } = lab.scheduler.counters();
    assert.deepEqual([ended, wouldAbandon], [0, 1]);
    serve(false, { runStart: false });
    lab.pass(LIMIT_MS);
    assert.equal(abandoned.length, 2);
  });

  test('abandoned, its next turn stands where its class does', () => {
    const { lab } = setUp();
    const level = () => lab.upstream.turns[0]?.level;
    const lease = leaseOf(lab.submit());
    for (let n = 0; n < 4; n += 1) {
      lab.pass(5_000);
      lease.progress('content');
    }
    lease.end({ kind: 'ok', endsRun: false });
    const next = leaseOf(lab.submit({ runStart: false }));
    assert.equal(level(), 'subagent', 'it has used its first quantum');
    next.end({ kind: 'ok', endsRun: false });
    lab.pass(LIMIT_MS);
    lab.submit({ runStart: false });
    assert.equal(level(), 'interactive');
  });

  test('a session that is over is shown for a while, and lives again with a turn', () => {
    const { lab, agent, serve } = setUp();
    serve(true);
    lab.pass(LIMIT_MS);
    assert.equal(agent()?.terminated, true);
    serve(false);
    assert.equal(agent()?.terminated, false);
    lab.pass(LIMIT_MS + 600_001);
    assert.equal(agent(), undefined);
  });
});

describe('the class of a session', () => {
  test('is told when it is first seen and when it changes: up at once, down after a while', () => {
    const { lab, classes, serve } = setUp();
    serve(false, { class: 'background' });
    serve(false, { class: 'background' });
    serve(false, { class: 'interactive' });
    lab.pass(299_000);
    serve(false, { class: 'subagent', agent: 'a' });
    lab.pass(2_000);
    serve(false, { class: 'background' });
    serve(false, { class: 'background', session: 's2' });
    assert.deepEqual(classes, ['s1 background', 's1 interactive', 's1 subagent', 's2 background']);
  });
});

describe('running agents', () => {
  const two = { agents: { running: 2 } };

  test('are so many sessions with their subagents; others wait until one has ended', () => {
    const { lab, agent, serve } = setUp(two);
    serve(false, { session: 'a' });
    serve(false, { session: 'b' });
    const third = lab.submit({ session: 'c' });
    assert.equal(third.leases.length, 0);
    assert.deepEqual(lab.scheduler.snapshot().agents, { limit: 2, running: 2, waiting: 1 });
    assert.deepEqual([lab.scheduler.snapshot().gated, agent('c')?.holdsPlace], [1, false]);
    assert.equal(lab.upstream.turns[0]?.state, 'gated');
    // Who has a place goes on, and so do its subagents.
    serve(false, { session: 'a', runStart: false });
    serve(true, { session: 'b', agent: 'x', class: 'subagent' });
    assert.equal(third.leases.length, 0);
    serve(true, { session: 'b', runStart: false });
    assert.equal(leaseOf(third).live, true);
    assert.deepEqual([agent('c')?.holdsPlace, agent('b')?.holdsPlace], [true, false]);
  });

  test('an abandoned one gives its place to the next', () => {
    const { lab, abandoned, serve } = setUp({ agents: { running: 1 } });
    serve(false, { session: 'a' });
    const next = lab.submit({ session: 'b' });
    lab.pass(LIMIT_MS);
    assert.equal(abandoned[0]?.holdsPlace, true);
    assert.equal(leaseOf(next).live, true);
  });

  test('a user goes before the background; who has waited too long before all', () => {
    const { lab, serve } = setUp({
      agents: { running: 1, abandonedMs: 1e9 },
      queue: { maxWaitMs: Number.POSITIVE_INFINITY },
    });
    serve(false, { session: 'a' });
    const old = lab.submit({ session: 'old', class: 'background' });
    lab.pass(300_000);
    const background = lab.submit({ session: 'background', class: 'background' });
    const user = lab.submit({ session: 'user' });
    const order: string[] = [];
    serve(true, { session: 'a', runStart: false });
    for (let n = 0; n < 3; n += 1) {
      const next = [old, background, user].find(({ leases }) => leases.at(-1)?.live);
      order.push(String(next?.turn.session));
      next?.leases.at(-1)?.end({ kind: 'ok', endsRun: true });
    }
    assert.deepEqual(order, ['old', 'user', 'background']);
  });

  test('who waits has the patience of any queue, and takes no place when it goes', () => {
    const { lab, serve } = setUp({ agents: { running: 1, abandonedMs: 1e9 } });
    serve(false, { session: 'a' });
    const waiting = lab.submit({ session: 'b' });
    const gone = lab.submit({ session: 'c' });
    gone.ticket.cancel();
    lab.pass(240_000);
    assert.deepEqual([waiting.refusals[0]?.code, gone.refusals[0]?.code], ['wait-expired', 'cancelled']);
    assert.deepEqual(lab.scheduler.snapshot().agents, { limit: 1, running: 1, waiting: 0 });
    serve(true, { session: 'a', runStart: false });
    assert.equal(lab.scheduler.snapshot().agents.running, 0);
  });

  test('open runs, their levels and places outlive a restart', () => {
    const before = setUp({ agents: { running: 1 } });
    const lease = leaseOf(before.lab.submit({ session: 'a', agent: 'x', class: 'subagent' }));
    for (let n = 0; n < 9; n += 1) {
      before.lab.pass(5_000);
      lease.progress('content');
    }
    lease.end({ kind: 'ok', endsRun: false });
    const saved = JSON.parse(JSON.stringify(before.lab.scheduler.save()));
    const after = setUp({ agents: { running: 1 } }, saved);
    assert.deepEqual(after.lab.scheduler.snapshot().agents, { limit: 1, running: 1, waiting: 0 });
    assert.equal(after.lab.submit({ session: 'b' }).leases.length, 0);
    after.lab.submit({ session: 'a', agent: 'x', class: 'subagent', runStart: false });
    const { turns } = after.lab.upstream;
    assert.equal(turns.find(({ session }) => session === 'a')?.level, 'background');
    after.lab.pass(LIMIT_MS);
    assert.equal(after.abandoned.length, 0, 'it has a turn again');
  });

  test('a run with which nobody goes on after a restart is abandoned like any other', () => {
    const before = setUp();
    before.serve(false);
    const saved = JSON.parse(JSON.stringify(before.lab.scheduler.save()));
    const { lab, abandoned } = setUp({}, saved);
    lab.pass(LIMIT_MS - 1);
    assert.equal(abandoned.length, 0, 'nobody could go on while there was no proxy');
    lab.pass(1);
    assert.equal(abandoned.length, 1);
  });

  test('what an older core saved, without runs, will do', () => {
    const { runs: _, ...older } = setUp().lab.scheduler.save();
    assert.deepEqual([...setUp({}, older).lab.scheduler.agents()], []);
  });
});

describe("turns that the host's memory holds", () => {
  test('are told of and counted once, and told of when they go', () => {
    const { lab, held } = setUp();
    lab.scheduler.setHostPressure({ memory: 0, poolShort: true });
    const first = lab.submit({ id: 'first', class: 'background' });
    lab.submit({ id: 'second', class: 'background' });
    lab.submit({ id: 'third', class: 'background' });
    leaseOf(lab.submit({ id: 'user' }));
    leaseOf(lab.submit({ id: 'sub', class: 'subagent', agent: 'a' }));
    assert.deepEqual(held, ['held second background']);
    assert.equal(lab.scheduler.snapshot().held, 1);
    lab.pass(500);
    lab.scheduler.setHostPressure({ memory: 0, poolShort: true });
    leaseOf(first).end({ kind: 'ok' });
    assert.deepEqual(held, ['held second background', 'released second 500', 'held third background']);
    lab.scheduler.setHostPressure({ memory: 0, poolShort: false });
    assert.equal(held.at(-1), 'released third 0');
    assert.deepEqual([lab.scheduler.counters().held, lab.scheduler.snapshot().held], [2, 0]);
  });

  test('are subagents too when it is harder pressed, and never users', () => {
    const running = (memory: number, turnClass: Turn['class']) => {
      const { lab } = setUp({ lanes: { fixed: 10 } });
      lab.scheduler.setHostPressure({ memory, poolShort: true });
      const turns = Array.from({ length: 10 }, () => lab.submit({ class: turnClass }));
      return turns.filter(({ leases }) => leases.length > 0).length;
    };
    assert.deepEqual(
      [0, 0.4, 0.6, 0.8, 1].map((memory) => [
        running(memory, 'interactive'),
        running(memory, 'subagent'),
        running(memory, 'background'),
      ]),
      [
        [10, 10, 1],
        [10, 10, 1],
        [10, 5, 1],
        [10, 1, 1],
        [10, 1, 1],
      ],
    );
  });

  for (const [what, changes] of Object.entries({
    lanes: { lanes: { fixed: 1 } },
    'rate limits': { limits: { configured: [{ perMin: { requests: 1 } }] } },
  })) {
    test(`one that ${what} keep is not held by the host`, () => {
      const { lab, held } = setUp(changes);
      lab.scheduler.setHostPressure({ memory: 0, poolShort: true });
      const first = lab.submit({ class: 'background' });
      const second = lab.submit({ class: 'background' });
      assert.deepEqual([first.leases.length, second.leases.length, held.length], [1, 0, 0]);
    });
  }
});
