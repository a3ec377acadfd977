// SPDX-License-Identifier: Apache-2.0
// A new configuration while turns wait and run.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { configSchema } from '../../daemon/config/schema.ts';
import { reloadable } from '../../daemon/core/reload.ts';
import { leaseOf, SchedulerLab, settings } from '../lib/scheduler.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

describe('reloadable', () => {
  const schema = configSchema(() => undefined);
  const of = (proxy: object) => schema.parse({ proxy }).proxy;

  test('takes what can change, and names what cannot', () => {
    const current = of({});
    const next = of({
      listen: '127.0.0.1:9',
      user: 'somebody',
      queue: { policy: 'deadline', wait: '9s' },
      body: '1M',
    });
    const { config, restart } = reloadable(current, next);
    assert.deepEqual(restart, ['proxy.listen', 'proxy.user', 'proxy.queue.policy']);
    assert.deepEqual(config.listen, current.listen);
    assert.equal(config.user, current.user);
    assert.deepEqual(
      [config.queue.policy, config.queue.waitMs, config.bodyBytes],
      ['priority', 9 * SECOND, 2 ** 20],
    );
  });

  test('names nothing where nothing of the kind changed', () => {
    assert.deepEqual(reloadable(of({}), of({ drain: '1s' })).restart, []);
  });
});

describe('a scheduler with other settings', () => {
  test('has other lanes at once, and keeps what it learned where it still may', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 } });
    const turns = Array.from({ length: 4 }, () => lab.submit());
    const running = () => turns.filter(({ leases }) => leases.length > 0).length;
    assert.equal(running(), 1);
    lab.scheduler.configure(settings({ lanes: { fixed: 3 } }));
    assert.equal(running(), 3);
    lab.scheduler.configure(settings({ lanes: { fixed: 1 } }));
    assert.equal(lab.upstream.lanes.held, 3, 'nobody loses a lane for it');
    lab.scheduler.configure(settings({ lanes: { start: 2 } }));
    assert.equal(lab.upstream.lanes.limit, 2);
    leaseOf(turns[0] ?? assert.fail()).end({ kind: 'error', status: 529 });
    assert.equal(lab.upstream.lanes.limit, 1);
    lab.scheduler.configure(settings({ lanes: { start: 8 } }));
    assert.equal(lab.upstream.lanes.limit, 1, 'learned');
  });

  test('is as patient with turns to come as it says, and with those under way as it was', () => {
    const lab = new SchedulerLab();
    const before = lab.submit();
    lab.scheduler.configure(settings({ reaper: { firstByteMs: 10 * SECOND }, retry: { most: 0 } }));
    const after = lab.submit();
    lab.pass(11 * SECOND);
    assert.equal(after.hung[0]?.evidence.limitMs, 10 * SECOND);
    assert.equal(before.hung.length, 0);
    lab.pass(110 * SECOND);
    assert.equal(before.hung.length, 1);
  });

  test('lets turns wait as long as it says', () => {
    const lab = new SchedulerLab({ lanes: { fixed: 1 } });
    lab.submit();
    lab.scheduler.configure(settings({ lanes: { fixed: 1 }, queue: { maxWaitMs: 5 * SECOND } }));
    const waits = lab.submit();
    lab.pass(6 * SECOND);
    assert.deepEqual(
      waits.refusals.map(({ code }) => code),
      ['wait-expired'],
    );
  });

  test('has another budget for sessions, with what they have used', () => {
    const lab = new SchedulerLab();
    const lease = leaseOf(lab.submit());
    lease.usage({ inputTokens: 900, outputTokens: 200 });
    lease.end({ kind: 'ok' });
    lab.scheduler.configure(settings({ limits: { sessionTokens: 1_000 } }));
    assert.equal(lab.submit().refusals[0]?.code, 'session-budget');
    lab.scheduler.configure(settings({ limits: { sessionTokens: 5_000 } }));
    assert.equal(lab.submit().leases.length, 1);
  });

  test('limits running agents from now on: those under way go on, the others wait', () => {
    const lab = new SchedulerLab();
    const one = lab.submit({ session: 's1' });
    const two = lab.submit({ session: 's2' });
    leaseOf(one).end({ kind: 'ok', endsRun: false });
    lab.scheduler.configure(settings({ agents: { running: 1 } }));
    assert.deepEqual(lab.scheduler.snapshot().agents, { limit: 1, running: 2, waiting: 0 });
    assert.equal(lab.submit({ session: 's1', runStart: false }).leases.length, 1, 'its run is under way');
    const third = lab.submit({ session: 's3' });
    const fourth = lab.submit({ session: 's4' });
    leaseOf(two).end({ kind: 'ok', endsRun: true });
    assert.equal(third.leases.length, 0, 'the other one still runs');
    lab.scheduler.configure(settings({ agents: { running: 2 } }));
    assert.deepEqual([third.leases.length, fourth.leases.length], [1, 0]);
    lab.scheduler.configure(settings());
    assert.equal(fourth.leases.length, 1);
    assert.deepEqual(lab.scheduler.snapshot().agents, { limit: null, running: 0, waiting: 0 });
  });

  test('waits for abandoned runs as long as it says, from now on', () => {
    const abandoned: string[] = [];
    const events = { onAbandoned: ({ session }: { session: string }) => abandoned.push(session) };
    const lab = new SchedulerLab({ agents: { abandonedMs: Number.POSITIVE_INFINITY } }, { events });
    leaseOf(lab.submit({ session: 's1' })).end({ kind: 'ok', endsRun: false });
    lab.pass(60 * MINUTE);
    lab.scheduler.configure(settings({ agents: { abandonedMs: 5 * MINUTE } }));
    lab.pass(4 * MINUTE);
    leaseOf(lab.submit({ session: 's2' })).end({ kind: 'ok', endsRun: false });
    assert.deepEqual(abandoned, []);
    lab.pass(1 * MINUTE);
    assert.deepEqual(abandoned, ['s1']);
    lab.scheduler.configure(settings({ agents: { abandonedMs: 1 * MINUTE } }));
    lab.pass(1 * MINUTE);
    assert.deepEqual(abandoned, ['s1', 's2']);
  });
});
