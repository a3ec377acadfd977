// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Cgroup } from '../../daemon/kernel/cgroup.ts';
import { native } from '../../daemon/kernel/native.ts';
import { type CgroupRoot, openRoot } from '../../daemon/kernel/tree.ts';
import { Guarantees } from '../../daemon/toolcall/guarantees.ts';
import { SessionCgroup } from '../../daemon/toolcall/session-cgroup.ts';
import { limitsOf } from '../lib/plain-call.ts';
import { plainTree } from '../lib/plain-tree.ts';

const guaranteesOf = (root: CgroupRoot) =>
  new Guarantees(root.cgroup, () => ({ interactive: 64, subagent: 8, background: 0 }), assert.ifError);

test('a cgroup file that is not there is not made, and the error says which', (t) => {
  const { root } = plainTree(t);
  for (const attempt of [
    () => root.cgroup.write('memory.hgih', '1'),
    () => root.cgroup.read('memory.hgih'),
  ]) {
    assert.throws(attempt, (error: NodeJS.ErrnoException) => {
      assert.equal(error.code, 'ENOENT');
      assert.match(error.message, /memory\.hgih/);
      return true;
    });
  }
  assert.ok(!existsSync(join(root.path, 'memory.hgih')));
});

test('a closed cgroup touches nothing, also when its number is used again', (t) => {
  const { root } = plainTree(t);
  const first = root.cgroup.makeChild('first');
  const number = first.fd;
  first.close();
  first.close();
  const second = root.cgroup.makeChild('second');
  assert.equal(second.fd, number);
  assert.throws(() => first.write('cgroup.kill', '1'), { code: 'EBADF' });
  assert.equal(readFileSync(join(root.path, 'second/cgroup.kill'), 'utf8'), '');
  second.close();
});

test('reads numbers, limits and events', async (t) => {
  const { root } = plainTree(t);
  const cgroup = root.cgroup.makeChild('a');
  t.after(() => cgroup.close());
  const path = join(root.path, 'a');
  writeFileSync(
    join(path, 'memory.events.local'),
    'low 0\nhigh 5\nmax 2\noom 1\noom_kill 3\noom_group_kill 1\n',
  );
  writeFileSync(join(path, 'cgroup.procs'), '12\n345\n');
  writeFileSync(join(path, 'cgroup.events'), 'populated 1\nfrozen 0\n');
  assert.deepEqual(cgroup.memoryEvents(), { high: 5, max: 2, oom: 1, oomKill: 3, oomGroupKill: 1 });
  assert.deepEqual(cgroup.procs(), [12, 345]);
  assert.equal(cgroup.populated(), true);
  assert.equal(cgroup.readNumber('memory.max'), Number.POSITIVE_INFINITY);
  assert.deepEqual(cgroup.cpuUsage(), { userMs: 2, systemMs: 1 });
  await cgroup.writeOffThread('memory.high', '4096');
  assert.equal(cgroup.readNumber('memory.high'), 4096);
  await assert.rejects(cgroup.writeOffThread('nothing', '1'), { code: 'ENOENT' });
  // A kernel without PSI does not have the file.
  rmSync(join(path, 'memory.pressure'));
  assert.equal(cgroup.memoryPressure().fullTotalUs, 0);
});

test('opening what is no directory or not there fails with path and errno', (t) => {
  const { dir, root } = plainTree(t);
  assert.throws(() => Cgroup.open(native(), join(dir, 'none')), { code: 'ENOENT', path: join(dir, 'none') });
  assert.throws(() => root.cgroup.child('cgroup.procs'), { code: 'ENOTDIR' });
  assert.throws(() => root.cgroup.child('none'), { code: 'ENOENT' });
  const made = root.cgroup.makeChild('twice');
  assert.throws(() => root.cgroup.makeChild('twice'), { code: 'EEXIST' });
  const again = root.cgroup.openOrMakeChild('twice');
  assert.equal(again.id, made.id);
  again.close();
  made.close();
});

test('a root outside cgroup v2 is refused, a trailing slash is not', (t) => {
  const { dir, root } = plainTree(t);
  assert.throws(() => openRoot(native(), '/tmp/agentrm', join(dir, 'proc')), {
    code: 'AGENTRM_ERR_CGROUP',
    message: '/tmp/agentrm: not a directory below a cgroup v2 mount',
  });
  assert.throws(() => openRoot(native(), dir, join(dir, 'proc')), { code: 'AGENTRM_ERR_CGROUP' });
  const again = openRoot(native(), `${root.path}/`, join(dir, 'proc'));
  assert.equal(again.procPath, '/agentrm');
  assert.equal(again.level, 1);
  again.cgroup.close();
});

test('a root whose children get no memory controller is refused; what else is missing is told', (t) => {
  const refusing = (controller: string) => ({
    ...native(),
    writeAt(dir: number, name: string, value: string) {
      if (value.includes(`+${controller}`))
        throw Object.assign(new Error('EBUSY: resource busy'), { code: 'EBUSY' });
      native().writeAt(dir, name, value);
    },
  });
  const { dir, root } = plainTree(t);
  const open = (controller: string) => openRoot(refusing(controller), root.path, join(dir, 'proc'));
  assert.throws(
    () => open('memory'),
    /no memory limits for calls: .*cgroup\.subtree_control: \+memory: EBUSY/,
  );
  const without = open('io');
  assert.deepEqual(
    without.degraded,
    [dir, root.path].map((path) => `${path}/cgroup.subtree_control: +io: EBUSY`),
  );
  without.cgroup.close();
  writeFileSync(join(dir, 'cgroup.controllers'), 'cpu memory\n');
  const fewer = openRoot(native(), root.path, join(dir, 'proc'));
  assert.deepEqual(fewer.degraded, [
    `${dir} does not offer the pids controller`,
    `${dir} does not offer the io controller`,
  ]);
  fewer.cgroup.close();
});

test('a spare cgroup is used once, with the limits of its call', (t) => {
  const { root } = plainTree(t);
  const session = new SessionCgroup(root, 's1', limitsOf(), guaranteesOf(root));
  t.after(() => session.close());
  const path = join(root.path, 's1');
  const calls = () => readdirSync(path).filter((name) => /^c[0-9a-f]{12}$/.test(name));
  session.prepare();
  session.prepare();
  const [spare] = calls();
  const value = (name: string, file: string) => readFileSync(join(path, name, file), 'utf8').split('\n')[0];
  const first = session.take(limitsOf('memory.high=100M pids.max=9 cpu.weight=300'));
  t.after(() => first.close());
  assert.equal(first.name, spare);
  assert.match(value(first.name, 'memory.high') ?? '', /^104857600/);
  assert.match(value(first.name, 'pids.max') ?? '', /^9/);
  assert.equal(value(first.name, 'memory.oom.group'), '1');
  // The session competes with others by its most important call.
  assert.match(readFileSync(join(path, 'cpu.weight'), 'utf8'), /^300/);
  const second = session.take(limitsOf());
  t.after(() => second.close());
  assert.notEqual(second.name, first.name);
  assert.match(readFileSync(join(path, 'cpu.weight'), 'utf8'), /^300/);
  assert.equal(calls().length, 2);
});

test('a spare that was removed under us is replaced', (t) => {
  const { root } = plainTree(t);
  const session = new SessionCgroup(root, 's1', limitsOf(), guaranteesOf(root));
  t.after(() => session.close());
  session.prepare();
  const path = join(root.path, 's1');
  const [spare] = readdirSync(path).filter((name) => name.startsWith('c') && !name.includes('.'));
  assert.ok(spare);
  rmSync(join(path, spare), { recursive: true });
  const taken = session.take(limitsOf('memory.high=100M'));
  t.after(() => taken.close());
  assert.notEqual(taken.name, spare);
  assert.equal(taken.readNumber('memory.high'), 100 * 2 ** 20);
});

test('a session that still holds something is not removed; then it is, with its spare', (t) => {
  const { root } = plainTree(t);
  const session = new SessionCgroup(root, 's1', limitsOf(), guaranteesOf(root));
  const call = session.take(limitsOf());
  session.prepare();
  assert.equal(session.remove(), false);
  session.discard(call);
  assert.equal(session.remove(), true);
  assert.ok(!existsSync(join(root.path, 's1')));
});

test('a controller that the tree lacks is left out', (t) => {
  const { root } = plainTree(t);
  const fewer = { ...root, controllers: new Set(['memory']) };
  const session = new SessionCgroup(fewer, 's1', limitsOf(), guaranteesOf(root));
  t.after(() => session.close());
  const call = session.take(limitsOf('pids.max=9 cpu.weight=7 memory.high=1G'));
  t.after(() => call.close());
  assert.equal(call.readNumber('pids.max'), Number.POSITIVE_INFINITY);
  assert.equal(call.readNumber('cpu.weight'), 100);
  assert.equal(call.readNumber('memory.high'), 2 ** 30);
});

test('a session is guaranteed what its most important call is, and the root what all are', (t) => {
  const { root } = plainTree(t);
  const guarantees = guaranteesOf(root);
  const open = (name: string) => new SessionCgroup(root, name, limitsOf(), guarantees);
  const first = open('s1');
  const second = open('s2');
  t.after(() => second.close());
  const low = (path: string) =>
    Number.parseInt(readFileSync(join(root.path, path, 'memory.low'), 'utf8'), 10);
  const taken = ['class=background', 'class=subagent', 'class=interactive', 'class=background'].map(
    (intent) => {
      const call = first.take(limitsOf(intent));
      return { call, low: low('s1') };
    },
  );
  assert.deepEqual(
    taken.map((each) => each.low),
    [0, 8, 64, 64],
  );
  const other = second.take(limitsOf('class=subagent'));
  t.after(() => other.close());
  assert.deepEqual([low('s2'), low('.')], [8, 72]);
  assert.equal(first.guaranteedBytes, 64);
  for (const { call } of taken) first.discard(call);
  assert.equal(first.remove(), true);
  // An ordinary file keeps what is behind the shorter value.
  assert.match(readFileSync(join(root.path, 'memory.low'), 'utf8'), /^8/);
});
