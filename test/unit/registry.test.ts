// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isOperator } from '../../daemon/control/operators.ts';
import { native } from '../../daemon/kernel/native.ts';
import { type ProcessId, processStat } from '../../daemon/kernel/proc.ts';
import { type Session, SessionRegistry } from '../../daemon/session/registry.ts';

function setUp(t: TestContext) {
  const ended: string[] = [];
  let wake = () => {};
  const registry = new SessionRegistry(native(), (session) => {
    ended.push(session.id);
    wake();
  });
  const children: ChildProcess[] = [];
  t.after(() => {
    registry.close();
    for (const child of children) child.kill('SIGKILL');
  });
  const agent = (): ProcessId & { child: ChildProcess } => {
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
    children.push(child);
    const stat = processStat(child.pid ?? 0);
    assert.ok(stat);
    return { pid: stat.pid, startTicks: stat.startTicks, child };
  };
  const sessionEnd = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
    });
  return { registry, ended, agent, sessionEnd };
}

/** How many processes are held by this one. */
function pidfds(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      // `anon_inode:[pidfd]`, since 6.9 `pidfd:[INODE]`.
      return readlinkSync(`/proc/self/fd/${fd}`).includes('pidfd');
    } catch {
      return false; // the listing's own
    }
  }).length;
}

/** One call from beginning to end. */
function call(registry: SessionRegistry, session: Session, owners: readonly ProcessId[] = []): void {
  registry.callStarted(session);
  registry.callEnding(session, owners);
  registry.callEnded(session);
}

test('a session is one user and one name; without a name, one parent', (t) => {
  const { registry } = setUp(t);
  const parent = { pid: 7, startTicks: 70 };
  const session = registry.join(1, 'a', parent, null);
  assert.equal(registry.join(1, 'a', undefined, 'claude-code'), session);
  assert.equal(session.agent, 'claude-code');
  assert.notEqual(registry.join(2, 'a', parent, null), session);
  const unnamed = registry.join(1, undefined, parent, null);
  assert.equal(unnamed.id, '7-70');
  assert.equal(registry.join(1, '', parent, null), unnamed);
  assert.equal(registry.join(1, 'x'.repeat(100_000), undefined, null).id.length, 128);
});

test('it lives with its owner and ends when that ends', async (t) => {
  const { registry, ended, agent, sessionEnd } = setUp(t);
  const session = registry.join(0, 'a', undefined, null);
  const owner = agent();
  call(registry, session, [{ pid: owner.pid, startTicks: 1 }, owner]);
  call(registry, session, [owner]);
  assert.equal(pidfds(), 1);
  assert.deepEqual(
    registry.owners(session).map(({ pid }) => pid),
    [owner.pid],
  );
  assert.deepEqual(ended, []);
  const over = sessionEnd();
  owner.child.kill('SIGKILL');
  await over;
  assert.deepEqual(ended, ['a']);
  assert.equal(registry.has(session), false);
  assert.equal(pidfds(), 0);
});

test('a call keeps it alive when its owner has ended', async (t) => {
  const { registry, ended, agent } = setUp(t);
  const session = registry.join(0, 'a', undefined, null);
  const owner = agent();
  call(registry, session, [owner]);
  registry.callStarted(session);
  const exited = once(owner.child, 'exit');
  owner.child.kill('SIGKILL');
  await exited;
  while (registry.owners(session).length > 0) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(ended, []);
  registry.callEnded(session);
  assert.deepEqual(ended, ['a']);
});

test('a call whose agent has ended no longer keeps it alive', async (t) => {
  const { registry, ended, agent, sessionEnd } = setUp(t);
  const session = registry.join(0, 'a', undefined, null);
  const [one, other] = [agent(), agent()];
  const untie = [one, one, other].map((process) => {
    registry.callStarted(session);
    return registry.tieCall(session, process);
  });
  assert.equal(pidfds(), 2);
  const died = once(one.child, 'exit');
  one.child.kill('SIGKILL');
  await died;
  while (session.orphanedCalls < 2) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(ended, [], "the other's call goes on");
  untie[0]?.();
  registry.callEnded(session);
  assert.deepEqual([session.liveCalls, session.orphanedCalls], [2, 1]);
  const over = sessionEnd();
  other.child.kill('SIGKILL');
  await over;
  assert.deepEqual(ended, ['a']);
  for (const end of untie) end();
  assert.equal(session.orphanedCalls, 0);
  assert.equal(pidfds(), 0);
});

test('an agent that ended before its call could be tied to it leaves an orphan', async (t) => {
  const { registry, ended, agent } = setUp(t);
  const session = registry.join(0, 'a', undefined, null);
  registry.callStarted(session);
  const untie = registry.tieCall(session, { pid: agent().pid, startTicks: 1 });
  assert.deepEqual(ended, []);
  registry.endIfOver(session);
  assert.deepEqual(ended, ['a']);
  untie();
  assert.equal(pidfds(), 0);
});

for (const order of [
  ['s1', 's2'],
  ['s2', 's1'],
]) {
  test(`of two with one id, left as ${order}, the newer goes on and the older ends`, (t) => {
    const { registry, ended, agent } = setUp(t);
    const startedAtMs = (name: string) => (name === 's1' ? 1 : 2);
    const restored = order.map((name) =>
      registry.restore({ uid: 0, id: 'a', name, agent: null, startedAtMs: startedAtMs(name) }),
    );
    const [old = assert.fail(), next = assert.fail()] = restored.sort(
      (a, b) => a.startedAtMs - b.startedAtMs,
    );
    assert.equal(registry.addOwner(next, agent()), true);
    registry.callStarted(old);
    assert.equal(registry.size, 2);
    assert.equal(registry.restore({ uid: 0, id: 'a', name: 's1', agent: null }), old);
    assert.equal(registry.join(0, 'a', undefined, null), next);
    registry.callEnded(old);
    assert.deepEqual(ended, ['a']);
    assert.deepEqual([registry.has(old), registry.has(next), registry.owners(next).length], [false, true, 1]);
    assert.equal(registry.find(next.key), next);
  });
}

test('the older of two with one id is found when the newer has ended', (t) => {
  const { registry, ended } = setUp(t);
  const [old, next] = ['s1', 's2'].map((name, startedAtMs) =>
    registry.restore({ uid: 0, id: 'a', name, agent: null, startedAtMs }),
  );
  assert.ok(old && next);
  registry.callStarted(old);
  registry.endIfOver(next);
  assert.deepEqual(ended, ['a']);
  assert.equal(registry.join(0, 'a', undefined, null), old);
});

test('made-up names do not pile up: the idlest of that user goes', (t) => {
  const { registry, ended, agent } = setUp(t);
  const owner = agent();
  const other = registry.join(2, 'other', undefined, null);
  call(registry, other, [owner]);
  const busy = registry.join(1, 'busy', undefined, null);
  registry.callStarted(busy);
  for (let index = 0; index < 300; index += 1) {
    const session = registry.join(1, `s${index}`, undefined, null);
    session.lastActiveMs = index;
    call(registry, session, [owner]);
    session.lastActiveMs = index;
  }
  assert.deepEqual(
    ended,
    Array.from({ length: 300 - 256 }, (_, index) => `s${index}`),
  );
  assert.equal(registry.has(busy), true);
  assert.equal(registry.has(other), true);
});

test('who may see everything: root, the group agentrm, nobody else', (t) => {
  const etc = mkdtempSync(join(tmpdir(), 'agentrm-etc-'));
  t.after(() => rmSync(etc, { recursive: true }));
  assert.equal(isOperator(0, 0, etc), true);
  assert.equal(isOperator(1000, 990, etc), false);
  writeFileSync(join(etc, 'group'), 'root:x:0:\nagentrm:x:990:ann,bob\nagentrm2:x:991:eve\n');
  writeFileSync(join(etc, 'passwd'), 'ann:x:1000:1000::/:/bin/sh\neve:x:1001:1001::/:/bin/sh\nodd line\n');
  assert.equal(isOperator(1000, 1000, etc), true);
  assert.equal(isOperator(1001, 1001, etc), false);
  assert.equal(isOperator(1001, 990, etc), true);
  assert.equal(isOperator(1002, 1002, etc), false);
});
