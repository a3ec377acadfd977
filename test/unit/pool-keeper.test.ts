// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { configSchema } from '../../daemon/config/schema.ts';
import { native } from '../../daemon/kernel/native.ts';
import type { Call } from '../../daemon/toolcall/call.ts';
import { Guarantees } from '../../daemon/toolcall/guarantees.ts';
import { PoolKeeper } from '../../daemon/toolcall/pool/keeper.ts';
import { SessionCgroup } from '../../daemon/toolcall/session-cgroup.ts';
import { limitsOf, plainCall } from '../lib/plain-call.ts';
import { plainTree } from '../lib/plain-tree.ts';

const MIB = 2 ** 20;
const TOTAL = 16 * 2 ** 30;
const START = 1_000_000;

/** A pool of 1000 MiB with background calls of which each has its session, over a plain tree. */
function setUp(t: TestContext, guarantee: string) {
  const reads: string[] = [];
  const { root, native: addon } = plainTree(t, {
    readAt(fd, file) {
      reads.push(`${fd} ${file}`);
      return native().readAt(fd, file);
    },
  });
  const config = configSchema(() => undefined).parse({
    pool: { guarantee: { background: guarantee, interactive: '128M' } },
  });
  const guarantees = new Guarantees(root.cgroup, () => config.pool.guarantee, assert.ifError);
  const limits = limitsOf('class=background');
  const calls: Call[] = [];
  const held = new Map<Call, { mib: number; cacheMib: number }>();
  const errors: unknown[] = [];
  /** What the host has beyond the budget. */
  const host = { beyondMib: 0 };
  let now = START;

  const sum = (of: 'mib' | 'cacheMib') => [...held.values()].reduce((total, one) => total + one[of], 0);
  const say = (path: string, mib: number, cacheMib: number): void => {
    writeFileSync(join(root.path, path, 'memory.current'), `${mib * MIB}\n`);
    const stat = { anon: mib - cacheMib, active_file: cacheMib, inactive_file: 0 };
    const lines = Object.entries(stat).map(([key, ofMib]) => `${key} ${ofMib * MIB}\n`);
    writeFileSync(join(root.path, path, 'memory.stat'), lines.join(''));
  };
  /** A call has come to hold so much, a part of it page cache. */
  const hold = (call: Call, mib: number, cacheMib = 0): void => {
    held.set(call, { mib, cacheMib });
    const { name } = call.session;
    for (const path of [name, `${name}/${call.id}`]) say(path, mib, cacheMib);
    say('.', sum('mib'), sum('cacheMib'));
  };
  const keeper = new PoolKeeper({
    native: addon,
    enforcer: { mode: 'bpf' },
    root: root.cgroup,
    config: () => config,
    poolSettings: () => ({ budgetBytes: 1000 * MIB, keepAvailableBytes: 0 }),
    hostMemory: () => ({
      totalBytes: TOTAL,
      availableBytes: (1000 + host.beyondMib - sum('mib') + sum('cacheMib')) * MIB,
      swapFreeBytes: 0,
    }),
    calls: () => calls,
    usageBytes: (call) => (held.get(call)?.mib ?? 0) * MIB,
    freeze(call) {
      call.frozenSinceMs = now;
      call.frozenFor = 'pool';
    },
    thaw: (call) => call.countFreeze(now),
    kill: () => assert.fail('nobody is to be killed'),
    enforce: () => {},
    onError: (error) => errors.push(error),
  });
  /** The next look, 10 ms after the one before. */
  const look = (): void => {
    now += 10;
    keeper.look(now);
    assert.deepEqual(errors, []);
  };
  const add = (name: string, mib: number): Call => {
    const sessionCgroup = new SessionCgroup(root, name, limits, guarantees);
    const startedAtMs = START + calls.length;
    const call = plainCall(t, sessionCgroup, limits, { procPath: `/${name}`, startedAtMs });
    calls.push(call);
    hold(call, mib);
    return call;
  };
  t.after(() => keeper.close());
  const elapsedMs = () => now - START;
  const { shortage } = config.pool;
  return {
    add,
    hold,
    look,
    elapsedMs,
    changed: () => keeper.changed(),
    limits: limits.limits,
    shortage,
    reads,
    host,
  };
}

/** Two have used the pool up to the lowest line, and hold still. */
function crowd({ add, look }: ReturnType<typeof setUp>): Call {
  add('first', 500);
  add('second', 430);
  const last = add('last', 20);
  look();
  assert.equal(last.frozenFor, undefined);
  return last;
}

test('with no guarantee the last that grows is frozen, and nobody asks what its session holds', (t) => {
  const bench = setUp(t, '0');
  const last = crowd(bench);
  bench.hold(last, 22);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
  const { fd } = last.sessionCgroup.cgroup;
  assert.deepEqual(
    bench.reads.filter((read) => read.startsWith(`${fd} `)),
    [],
  );
});

test('a session within its guarantee grows up to that, and goes on when it is within it again', (t) => {
  const bench = setUp(t, '64M');
  const last = crowd(bench);
  for (const mib of [22, 40, 60]) {
    bench.hold(last, mib);
    bench.look();
    assert.deepEqual([last.frozenFor, last.chargeLineBytes / MIB], [undefined, 990], `${mib} MiB`);
  }
  bench.hold(last, 61);
  bench.look();
  assert.equal(last.frozenFor, 'pool', 'it begins to borrow');
  bench.hold(last, 57);
  bench.look();
  assert.equal(last.frozenFor, 'pool', 'not far enough below');
  assert.ok(last.chargeLineBytes > 0 && last.chargeLineBytes <= 940 * MIB);
  bench.hold(last, 48);
  bench.look();
  assert.equal(last.frozenFor, undefined, 'at once, however short the freeze was');
});

test('page cache that can be reclaimed is not what a session has of its guarantee', (t) => {
  const bench = setUp(t, '64M');
  const last = crowd(bench);
  bench.hold(last, 65, 40);
  bench.look();
  assert.equal(last.frozenFor, undefined);
  bench.hold(last, 68, 4);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
});

test('the last step is for the first in order, and beyond it what the host can bear', (t) => {
  const bench = setUp(t, '64M');
  const last = crowd(bench);
  bench.add('third', 36);
  bench.hold(last, 22);
  bench.host.beyondMib = 100;
  bench.look();
  bench.hold(last, 28);
  bench.look();
  assert.equal(last.frozenFor, undefined);
  bench.host.beyondMib = 0;
  bench.hold(last, 30);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
});

test('guarantees that do not fit into the pool are kept in the order of the calls', (t) => {
  const bench = setUp(t, '400M');
  const [, second, last] = [bench.add('first', 500), bench.add('second', 200), bench.add('last', 250)];
  bench.look();
  bench.hold(second, 205);
  bench.hold(last, 255);
  bench.look();
  assert.deepEqual([second.frozenFor, last.frozenFor], [undefined, 'pool']);
});

test('what sessions hold is looked at with memory to spare too', (t) => {
  const bench = setUp(t, '64M');
  bench.add('first', 500);
  const last = bench.add('last', 20);
  bench.look();
  assert.equal(last.chargeLineBytes / MIB, 990);
  bench.hold(last, 200);
  bench.look();
  assert.equal(last.chargeLineBytes / MIB, 970);
});

test('a session that is guaranteed more is within that at once', (t) => {
  const bench = setUp(t, '64M');
  const last = crowd(bench);
  bench.host.beyondMib = 100;
  bench.hold(last, 61);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
  assert.ok(last.poolLineBytes <= 940 * MIB);
  last.sessionCgroup.guarantee({ ...bench.limits, class: 'interactive' });
  bench.changed();
  assert.ok(last.poolLineBytes > 991 * MIB);
  bench.look();
  assert.equal(last.frozenFor, undefined);
});

test('in its turn a call has a line of its own, until the turn is over', (t) => {
  const bench = setUp(t, '0');
  const last = crowd(bench);
  bench.host.beyondMib = 200;
  // So little is left of the budget that nobody can be tried.
  bench.hold(last, 66);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
  assert.ok(last.chargeLineBytes <= 940 * MIB);
  const { rotateMs, passMs } = bench.shortage;
  while (last.frozenFor === 'pool' && bench.elapsedMs() < 2 * rotateMs) bench.look();
  assert.equal(last.frozenFor, undefined);
  assert.ok(bench.elapsedMs() >= rotateMs, 'its turn has come');
  assert.ok(last.chargeLineBytes > 1000 * MIB, 'over the budget');
  assert.ok(last.chargeLineBytes < 1200 * MIB, 'but not all that the host has');
  const turn = last.chargeLineBytes;
  bench.hold(last, 80);
  bench.look();
  assert.deepEqual([last.frozenFor, last.chargeLineBytes], [undefined, turn], 'however it grows');
  for (let ms = 0; ms < passMs; ms += 10) bench.look();
  bench.hold(last, 90);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
  assert.ok(last.chargeLineBytes <= 940 * MIB);
});

test('of a session whose cgroup has gone nobody knows that it is within its guarantee', (t) => {
  const bench = setUp(t, '64M');
  const last = crowd(bench);
  last.sessionCgroup.cgroup.close();
  bench.hold(last, 22);
  bench.look();
  assert.equal(last.frozenFor, 'pool');
});
