// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { arch, release } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { loadProgram } from '../lib/daemon.ts';
import { ended, Lab, MiB, missing, native, stateOf, until } from './bpf-lab.ts';

const skip = missing() ?? false;

/** Longer than the longest throttle sleep, 2 s, with room for an emulated machine. */
const timeout = 60_000;

describe('enforcement in the kernel', { skip, timeout: 10 * timeout }, () => {
  let lab: Lab;
  before(() => {
    lab = new Lab();
  });
  after(() => lab.close());

  it('passes the verifier', () => {
    const programs = lab.bpf.programs();
    assert.ok(programs.length >= 11);
    for (const { name, attached, verifiedInsns, type } of programs) {
      // The program that shows existing cgroups to the sampler runs once and stays unattached.
      assert.equal(attached, name !== 'on_existing', name);
      assert.ok(verifiedInsns > 0 && verifiedInsns < 100_000, `${type}: ${verifiedInsns} instructions`);
    }
    if (process.env.OUT) {
      mkdirSync(process.env.OUT, { recursive: true });
      const record = { kernel: release(), arch: arch(), hooks: lab.bpf.hooks, programs };
      writeFileSync(
        join(process.env.OUT, `verifier-${release()}.json`),
        `${JSON.stringify(record, null, 2)}\n`,
      );
    }
  });

  it('stops an allocator at its line, and lets it finish once it has been lent memory', {
    timeout,
  }, async () => {
    const { cgroup, policy } = lab.call(32);
    const child = cgroup.spawn(loadProgram, ['--bytes', '48M', 'procs', '1']);
    const event = await lab.event(cgroup, 'stop');
    assert.equal(event.reason, 'line');
    assert.equal(event.signalled, true);
    assert.equal(event.comm, 'agentrm-load');
    assert.ok(cgroup.pids().includes(event.pid));
    assert.ok(event.usageBytes > policy.freezeLineBytes);
    // The bound of the issue, for one task that charges 64 pages at a time.
    assert.ok(event.usageBytes <= policy.freezeLineBytes + MiB / 4, `${event.usageBytes}`);

    await until(() => stateOf(event.pid) === 'T');
    assert.deepEqual(
      lab.bpf.stops(cgroup.id).map(({ tgid, byBpf }) => ({ tgid, byBpf })),
      [{ tgid: event.pid, byBpf: true }],
    );
    const stats = lab.stats(cgroup);
    assert.ok(stats.stops >= 1 && stats.highEvents >= stats.failedReclaims && stats.failedReclaims >= 1);
    assert.ok(stats.throttledMs > 0);
    assert.equal(stats.usageAtStopBytes, event.usageBytes);
    assert.ok(stats.firstStopNs > 0n && stats.firstStopNs <= event.timeNs);

    lab.freeze(cgroup);
    await until(() => /^frozen 1$/m.test(cgroup.read('cgroup.events')));
    assert.deepEqual(lab.bpf.stops(cgroup.id), [], 'continued tasks are no longer stopped');
    const frozenAt = cgroup.number('memory.current');
    assert.notEqual(stateOf(event.pid), 'T');
    assert.equal(cgroup.number('memory.current'), frozenAt);

    lab.lend(cgroup, policy, 128);
    assert.equal(await ended(child), 0);
    assert.equal(
      lab.events.filter((other) => other.cgroupId === cgroup.id && other.kind === 'stop').length,
      1,
    );
    assert.equal((await lab.event(cgroup, 'emptied')).pid, 0);
  });

  it('stops who writes to a file in memory before one more write takes it past the line', {
    timeout: 2 * timeout,
  }, async () => {
    // A write runs to its end: of several sizes, one is likely to come to the line with most of it to go.
    for (const size of ['1M', '896K', '768K', '640K']) {
      const { cgroup, policy } = lab.call(64);
      cgroup.spawn(loadProgram, ['--bytes', '96M', 'tmpfs', '/dev/shm', size]);
      const { reason } = await lab.event(cgroup, 'stop');
      assert.equal(reason, 'line');
      lab.freeze(cgroup);
      await until(() => /^frozen 1$/m.test(cgroup.read('cgroup.events')));
      const overBytes = cgroup.number('memory.peak') - policy.freezeLineBytes;
      assert.ok(overBytes <= MiB / 4, `writes of ${size}: ${overBytes} bytes over the line`);
      await cgroup.remove();
    }
  });

  it('leaves a writer alone for whom reclaim makes room', { timeout }, async () => {
    const { cgroup } = lab.call(64);
    const script = `cat ${process.execPath} >/dev/null; dd if=/dev/zero of=/dev/shm/lab bs=1M count=44; rm /dev/shm/lab`;
    writeFileSync('/proc/sys/vm/drop_caches', '1');
    const child = cgroup.spawn('/bin/sh', ['-c', script]);
    assert.equal(await ended(child), 0);
    const stats = lab.stats(cgroup);
    assert.ok(stats.highEvents > 0, 'it went over memory.high');
    assert.equal(stats.stops, 0);
    await cgroup.remove();
  });

  it('sends one event a cycle for many tasks, and a new one after a thaw', { timeout }, async () => {
    const { cgroup, policy } = lab.call(32);
    // Children that stay: what ends early makes room for the others.
    const child = cgroup.spawn(loadProgram, ['--bytes', '4M', 'forks', '16']);
    const stopsOf = () => lab.events.filter((event) => event.cgroupId === cgroup.id && event.kind === 'stop');
    await lab.event(cgroup, 'stop');
    lab.freeze(cgroup);
    await until(() => /^frozen 1$/m.test(cgroup.read('cgroup.events')));
    assert.equal(stopsOf().length, 1);
    const peak = cgroup.number('memory.current');
    assert.ok(
      peak <= policy.freezeLineBytes + (16 * MiB) / 4,
      `${(peak - policy.freezeLineBytes) / MiB} MiB over`,
    );

    const lent = lab.lend(cgroup, policy, 40);
    await until(() => stopsOf().length === 2);
    lab.freeze(cgroup);
    await until(() => /^frozen 1$/m.test(cgroup.read('cgroup.events')));
    assert.equal(stopsOf().length, 2);
    lab.lend(cgroup, lent, 256);
    assert.equal(await ended(child), 0);
  });

  it('stops when the time budget is used up, below the line', { timeout }, async () => {
    const { cgroup } = lab.call(16, { freezeLineBytes: 2 ** 40, budgetMs: 50 });
    cgroup.spawn(loadProgram, ['--bytes', '64M', 'procs', '1']);
    const event = await lab.event(cgroup, 'stop');
    assert.equal(event.reason, 'budget-time');
    assert.ok(lab.stats(cgroup).throttledMs >= 50);
    await cgroup.remove();
  });

  it('stops when the event budget is used up', { timeout }, async () => {
    const { cgroup } = lab.call(16, { freezeLineBytes: 2 ** 40, budgetEvents: 3 });
    cgroup.spawn(loadProgram, ['--bytes', '64M', 'procs', '1']);
    assert.equal((await lab.event(cgroup, 'stop')).reason, 'budget-events');
    await cgroup.remove();
  });

  it('counts what reclaim takes from its own program to the event budget: no sleep comes for that', {
    timeout,
  }, async () => {
    writeFileSync('/proc/sys/vm/drop_caches', '1');
    const { cgroup } = lab.call(64, { freezeLineBytes: 2 ** 40, budgetEvents: 64 });
    cgroup.spawn(loadProgram, ['--bytes', '60M', 'reread', process.execPath, '8M']);
    assert.equal((await lab.event(cgroup, 'stop')).reason, 'budget-events');
    assert.ok(lab.stats(cgroup).refaults > 0);
    await cgroup.remove();
  });

  it('only counts without the flag', { timeout }, async () => {
    const { cgroup } = lab.call(16, { freezeLineBytes: 0, flags: 0 });
    cgroup.spawn(loadProgram, ['--bytes', '64M', 'procs', '1']);
    await until(() => lab.stats(cgroup).throttledMs > 0);
    assert.equal(lab.stats(cgroup).stops, 0);
    await cgroup.remove();
  });

  it('never stops a page-cache reader beside anonymous memory', { timeout: 3 * timeout }, async () => {
    // The file is on the machine's own disk: tmpfs pages are no page cache that could be dropped.
    const { cgroup, policy } = lab.call(64, { budgetMs: 1000, budgetEvents: 256 });
    const file = process.execPath;
    const child = cgroup.spawn(loadProgram, ['--bytes', '60M', 'read', file]);
    assert.equal(await ended(child), 0);
    const stats = lab.stats(cgroup);
    assert.ok(stats.highEvents > 0, 'the reader went over memory.high');
    assert.equal(stats.stops, 0);
    assert.ok(policy.freezeLineBytes > 0);
    await cgroup.remove();
  });

  describe('in a full pool', () => {
    const poolMiB = 64;
    /** Nothing of its own is in a call's way, and all of the pool is its. */
    const inPool = () => {
      // What is in the page cache already is charged to whoever read it first.
      writeFileSync('/proc/sys/vm/drop_caches', '1');
      return lab.call(1024, { poolLineBytes: poolMiB * MiB }).cgroup;
    };
    before(() => lab.root.write('memory.high', poolMiB * MiB));
    after(() => lab.root.write('memory.high', 'max'));

    it('stops who grows', { timeout }, async () => {
      const cgroup = inPool();
      cgroup.spawn(loadProgram, ['--bytes', '128M', 'procs', '1']);
      const { reason, usageBytes } = await lab.event(cgroup, 'stop');
      assert.equal(reason, 'pool');
      assert.ok(Math.abs(usageBytes - poolMiB * MiB) <= MiB / 2, `${usageBytes}`);
      // Held back for others: that is not its own memory.high.
      assert.equal(lab.stats(cgroup).highEvents, 0);
      await cgroup.remove();
    });

    it('does not hold a budget against a call that was used up before', { timeout }, async () => {
      const { cgroup, policy } = lab.call(16, { freezeLineBytes: 2 ** 40, budgetEvents: 3 });
      cgroup.spawn(loadProgram, ['--bytes', '128M', 'procs', '1']);
      assert.equal((await lab.event(cgroup, 'stop')).reason, 'budget-events');
      lab.freeze(cgroup);
      await until(() => /^frozen 1$/m.test(cgroup.read('cgroup.events')));
      const { throttledMs, stops } = lab.stats(cgroup);
      lab.lend(cgroup, policy, 1024);
      // It sleeps at the pool's limit now, not at its own.
      await until(() => lab.stats(cgroup).throttledMs > throttledMs + 100);
      assert.equal(lab.stats(cgroup).stops, stops);
      await cgroup.remove();
    });

    it('stops who gets only back from reclaim what it needs again', { timeout }, async () => {
      const cgroup = inPool();
      cgroup.spawn(loadProgram, ['--bytes', '60M', 'reread', process.execPath, '8M']);
      assert.equal((await lab.event(cgroup, 'stop')).reason, 'pool');
      assert.ok(lab.stats(cgroup).refaults > 0);
      await cgroup.remove();
    });

    it('leaves alone who reads files once', { timeout: 3 * timeout }, async () => {
      const cgroup = inPool();
      const child = cgroup.spawn(loadProgram, ['--bytes', '56M', 'read', process.execPath]);
      assert.equal(await ended(child), 0);
      assert.ok(Number(/^high (\d+)$/m.exec(lab.root.read('memory.events'))?.[1]) > 0);
      assert.equal(lab.stats(cgroup).stops, 0);
      await cgroup.remove();
    });
  });

  it('applies to cgroups below the call', { timeout }, async () => {
    const { cgroup } = lab.call(16);
    cgroup.delegate();
    const nested = cgroup.child('nested').child('deeper');
    nested.spawn(loadProgram, ['--bytes', '64M', 'procs', '1']);
    const event = await lab.event(cgroup, 'stop');
    assert.equal(event.cgroupId, cgroup.id);
    assert.ok(nested.pids().includes(event.pid));
    await cgroup.remove();
  });

  it('leaves a traced process alone', { timeout }, async () => {
    const { cgroup } = lab.call(16);
    // The tracer stays outside: it is the traced one that has to come to the line first.
    const tracer = `
import ctypes, os, sys
libc = ctypes.CDLL(None)
pid = os.fork()
if pid == 0:
    open(sys.argv[1], 'w').write(str(os.getpid()))
    libc.ptrace(0, 0, 0, 0)
    os.execv(sys.argv[2], sys.argv[2:])
os.waitpid(pid, 0)
libc.ptrace(7, pid, 0, 0)
os.waitpid(pid, 0)`;
    const load = [loadProgram, '--bytes', '64M', 'threads', '1'];
    const child = spawn('python3', ['-c', tracer, `${cgroup.path}/cgroup.procs`, ...load]);
    const event = await lab.event(cgroup, 'stop');
    assert.equal(event.signalled, false);
    assert.notEqual(stateOf(event.pid).toUpperCase(), 'T');
    await cgroup.remove();
    assert.equal(await ended(child), 0);
  });

  it('leaves a process of another group than its parent alone', { timeout }, async () => {
    const { cgroup } = lab.call(16);
    const child = cgroup.spawn('setsid', ['--fork', '--wait', loadProgram, '--bytes', '64M', 'threads', '1']);
    const event = await lab.event(cgroup, 'stop');
    assert.equal(event.signalled, false);
    assert.notEqual(stateOf(event.pid), 'T');
    await cgroup.remove();
    assert.notEqual(await ended(child), 0);
  });

  it('stops nobody while the heartbeat is stale, and everybody again afterwards', { timeout }, async () => {
    const { cgroup } = lab.call(16);
    lab.stopHeart();
    await new Promise((resolve) => setTimeout(resolve, 2100));
    cgroup.spawn(loadProgram, ['--bytes', '64M', 'procs', '1']);
    const { cgroup: other } = lab.call(16);
    await until(() => cgroup.number('memory.current') > 16.5 * MiB);
    await until(() => lab.stats(cgroup).throttledMs > 500);
    assert.equal(lab.stats(cgroup).stops, 0);
    lab.startHeart();
    await lab.event(cgroup, 'stop');
    await cgroup.remove();
    await other.remove();
  });

  it('tells stops by others from its own, and forgets those that were continued', { timeout }, async () => {
    const { cgroup } = lab.call(64);
    const child = cgroup.spawn('sleep', ['100']);
    await until(() => cgroup.pids().length === 1);
    const before = native.monotonicNs();
    child.kill('SIGSTOP');
    await until(() => lab.bpf.stops(cgroup.id).length === 1);
    const [stop] = lab.bpf.stops(cgroup.id);
    assert.equal(stop?.tgid, child.pid);
    assert.equal(stop?.byBpf, false);
    assert.ok(stop && stop.timeNs >= before);
    child.kill('SIGCONT');
    assert.deepEqual(lab.bpf.stops(cgroup.id), []);
    child.kill('SIGSTOP');
    await until(() => lab.bpf.stops(cgroup.id).length === 1);
    child.kill('SIGKILL');
    await ended(child);
    assert.deepEqual(lab.bpf.stops(cgroup.id), [], 'the pid may soon be somebody else');
    await cgroup.remove();
  });

  it('reports what the OOM killer did, with the call', { timeout }, async () => {
    const { cgroup } = lab.call(1024);
    cgroup.write('memory.max', 16 * MiB);
    const child = cgroup.spawn(loadProgram, ['--bytes', '64M', 'threads', '1']);
    const event = await lab.event(cgroup, 'oom');
    assert.equal(event.pid, child.pid);
    assert.equal(event.comm, 'agentrm-load');
    assert.ok(event.usageBytes <= 16 * MiB && event.usageBytes > 15 * MiB);
    assert.equal(await ended(child), 'SIGKILL');
    assert.equal(lab.stats(cgroup).oomKills, 1);
    await cgroup.remove();
  });

  it('counts processes, not threads', { timeout }, async () => {
    const { cgroup } = lab.call(64);
    const child = cgroup.spawn('/bin/sh', ['-c', 'for i in 1 2 3 4 5; do /bin/true; done; exit 0']);
    assert.equal(await ended(child), 0);
    const stats = lab.stats(cgroup);
    assert.equal(stats.forks, 5);
    // The five, and the shell that was started in its place.
    assert.equal(stats.execs, 6);
    assert.equal(stats.exits, 6);
    const threads = cgroup.spawn(loadProgram, ['--bytes', '4K', 'threads', '4']);
    assert.equal(await ended(threads), 0);
    assert.equal(lab.stats(cgroup).forks, 5);
    assert.equal(lab.stats(cgroup).exits, 7);
    await cgroup.remove();
  });

  it('knows nothing of a call whose policy was deleted', () => {
    const { cgroup } = lab.call(64);
    assert.ok(lab.bpf.stats(cgroup.id));
    lab.bpf.deletePolicy(cgroup.id);
    assert.equal(lab.bpf.stats(cgroup.id), null);
    lab.bpf.deletePolicy(cgroup.id);
  });

  it('has dropped and missed nothing', () => {
    const { eventsDropped, sendSignalErrors, stopsUnrecorded } = lab.bpf.counters();
    assert.deepEqual(
      { eventsDropped, sendSignalErrors, stopsUnrecorded },
      {
        eventsDropped: 0,
        sendSignalErrors: 0,
        stopsUnrecorded: 0,
      },
    );
  });
});
