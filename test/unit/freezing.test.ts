// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { nowMs } from '../../daemon/clock.ts';
import type { Enforcer, StoppedTask } from '../../daemon/kernel/enforcer.ts';
import { Freezer } from '../../daemon/kernel/freezer.ts';
import { native } from '../../daemon/kernel/native.ts';
import { processStat } from '../../daemon/kernel/proc.ts';
import { UserEnforcer } from '../../daemon/kernel/user-enforcer.ts';
import { Freezing } from '../../daemon/toolcall/freezing.ts';
import { SessionCgroup } from '../../daemon/toolcall/session-cgroup.ts';
import { limitsOf, plainCall } from '../lib/plain-call.ts';
import { plainTree } from '../lib/plain-tree.ts';

const PROC_PATH = '/agentrm/s/c';

/** A call over a plain tree, with real processes of which the table of stops tells, as BPF would have filled it. */
function setUp(t: TestContext) {
  const { dir, root, native: addon } = plainTree(t);
  const procRoot = join(dir, 'proc');
  const stops: StoppedTask[] = [];
  const enforcer: Enforcer = Object.assign(
    new UserEnforcer(addon, { stop() {}, oom() {}, emptied() {} }),
    // A task that is continued is forgotten.
    { stoppedTasks: () => stops.filter(({ tgid }) => processStat(tgid)?.state === 'T') },
  );
  const freezing = new Freezing({
    native: addon,
    freezer: new Freezer(addon, enforcer, procRoot),
    emit() {},
  });
  const limits = limitsOf();
  const sessionCgroup = new SessionCgroup(root, 's', limits, undefined);
  const call = plainCall(t, sessionCgroup, limits, { procPath: PROC_PATH, startedAtMs: 0 });
  /** A process of the call. */
  const member = async (): Promise<number> => {
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
    await once(child, 'spawn');
    t.after(() => child.kill('SIGKILL'));
    const pid = child.pid ?? assert.fail();
    mkdirSync(join(procRoot, String(pid)));
    writeFileSync(join(procRoot, String(pid), 'cgroup'), `0::${PROC_PATH}\n`);
    symlinkSync(`/proc/${pid}/stat`, join(procRoot, String(pid), 'stat'));
    return pid;
  };
  const isStopped = (pid: number) => processStat(pid)?.state === 'T';
  /** It stops, and that is on record. @returns when that was. */
  const stop = async (pid: number, byBpf: boolean): Promise<bigint> => {
    process.kill(pid, 'SIGSTOP');
    while (!isStopped(pid)) await new Promise((resolve) => setImmediate(resolve));
    const timeNs = native().monotonicNs();
    stops.push({ tgid: pid, timeNs, byBpf });
    return timeNs;
  };
  const lookAfter = (afterMs = 0) => freezing.lookAfter(nowMs() + afterMs, (_, action) => action());
  return { freezing, call, member, stop, isStopped, lookAfter };
}

test('what a script has stopped stays so when its call is frozen for others and thawed', async (t) => {
  const { freezing, call, member, stop, isStopped, lookAfter } = setUp(t);
  const pid = await member();
  await stop(pid, false);
  freezing.freeze(call, 'pool', 'test', 0);
  freezing.thaw(call, 'test');
  lookAfter();
  assert.ok(isStopped(pid));
});

test('so does what it has stopped since an earlier stop by BPF', async (t) => {
  const { freezing, call, member, stop, isStopped, lookAfter } = setUp(t);
  const [own, other] = [await member(), await member()];
  const stoppedAtNs = await stop(own, true);
  freezing.freeze(call, 'line', 'test', 0, stoppedAtNs);
  assert.ok(!isStopped(own));
  freezing.thaw(call, 'test');
  lookAfter(10_000);
  await stop(other, false);
  freezing.freeze(call, 'pool', 'test', 0);
  freezing.thaw(call, 'test');
  lookAfter();
  assert.ok(isStopped(other));
});

test('what has stopped itself after a thaw is continued, also if its call is frozen again meanwhile', async (t) => {
  const { freezing, call, member, stop, isStopped } = setUp(t);
  const [own, parent] = [await member(), await member()];
  const stoppedAtNs = await stop(own, true);
  freezing.freeze(call, 'line', 'test', 0, stoppedAtNs);
  freezing.thaw(call, 'test');
  await stop(parent, false);
  freezing.freeze(call, 'pool', 'test', 0);
  assert.ok(!isStopped(parent));
});

test('a stop by BPF of which the news comes when the daemon has frozen the call counts', async (t) => {
  const { freezing, call, member, stop, isStopped } = setUp(t);
  const [own, parent] = [await member(), await member()];
  const stoppedAtNs = await stop(own, true);
  await stop(parent, false);
  freezing.freeze(call, 'pool', 'test', 0);
  assert.deepEqual([isStopped(own), isStopped(parent)], [false, true]);
  freezing.stoppedBefore(call, stoppedAtNs);
  freezing.thaw(call, 'test');
  assert.ok(!isStopped(parent));
});

test('what BPF had stopped for an earlier daemon is continued, and not what was stopped before', async (t) => {
  const { freezing, call, member, stop, isStopped, lookAfter } = setUp(t);
  const [before, own, parent] = [await member(), await member(), await member()];
  await stop(before, false);
  const stoppedAtNs = await stop(own, true);
  await stop(parent, false);
  freezing.letGoOn(call, stoppedAtNs);
  lookAfter();
  assert.deepEqual([before, own, parent].map(isStopped), [true, false, false]);
});
