// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { loadProgram } from '../lib/daemon.ts';
import { addonPath, ended, Lab, MiB, missing, native, objectPath, stateOf, until } from './bpf-lab.ts';

const skip = missing() ?? false;
const timeout = 60_000;

const [major = 0, minor = 0] = release().split('.').map(Number);
/** From 6.18 on the kernel allocates timers with kmalloc_nolock(), which needs this instruction. */
const noTimer =
  (major > 6 || minor >= 18) && !readFileSync('/proc/cpuinfo', 'utf8').includes(' cx16')
    ? 'this CPU has no cmpxchg16b: no BPF timer from 6.18 on'
    : false;

describe('the life of the programs', { skip, timeout: 10 * timeout }, () => {
  let lab: Lab;
  beforeEach(() => {
    lab = new Lab();
  });
  afterEach(() => lab.close());

  it('outlive the process that loaded them, and are adopted by the next', { timeout }, async () => {
    const { cgroup } = lab.call(16);
    // A daemon of its own, which is killed: this lab's programs are replaced by its programs.
    const daemon = spawn(process.execPath, ['--input-type=module', '-'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const options = { object: objectPath, pinDir: lab.pinDir, rootCgroupId: lab.root.id, callLevel: 3 };
    daemon.stdin.end(`
      import { createRequire } from 'node:module';
      const native = createRequire('/')(${JSON.stringify(addonPath)});
      const bpf = native.openBpf({ ...${JSON.stringify(options)}, events() {} });
      console.log(bpf.adopted);
      setInterval(() => bpf.beat(), 100);`);
    const [adopted] = await once(daemon.stdout.setEncoding('utf8'), 'data');
    assert.equal(adopted, 'true\n');
    lab.bpf.close();
    daemon.kill('SIGKILL');
    await once(daemon, 'exit');
    assert.deepEqual(readdirSync(join(lab.pinDir, 'links')).includes('on_throttle_sleep'), true);

    // Nobody has the programs open, yet they stop the call, and keep the event for whoever comes.
    const child = cgroup.spawn(loadProgram, ['--bytes', '64M', 'threads', '1']);
    lab.stopHeart();
    const heartbeat = join(lab.pinDir, 'maps/heartbeat');
    const beat = (): void => {
      const now = Buffer.alloc(8);
      now.writeBigUInt64LE(native.monotonicNs());
      const value = [...now].map(String);
      spawnSync('bpftool', [
        'map',
        'update',
        'pinned',
        heartbeat,
        'key',
        '0',
        '0',
        '0',
        '0',
        'value',
        ...value,
      ]);
    };
    await until(() => cgroup.pids().length > 0);
    await until(() => {
      beat();
      return stateOf(child.pid as number) === 'T';
    });
    lab.bpf = lab.open();
    lab.startHeart();
    assert.equal(lab.bpf.adopted, true);
    const event = await lab.event(cgroup, 'stop');
    assert.equal(event.pid, child.pid);
    assert.equal(lab.bpf.stops(cgroup.id).length, 1);
    assert.ok(lab.stats(cgroup).stops > 0);
  });

  it('are attached once, however often they are replaced', () => {
    const links = () => readdirSync(join(lab.pinDir, 'links')).sort();
    const before = links();
    assert.ok(before.length >= 10);
    const again = lab.open();
    assert.deepEqual(links(), before);
    again.close();
    const other = lab.open(['fexit/reclaim_high']);
    assert.deepEqual(other.hooks, ['fexit/reclaim_high']);
    assert.deepEqual(
      links(),
      before.filter((name) => name !== 'on_throttle_sleep'),
    );
    other.close();
  });

  it('leave nothing behind when they are unpinned', () => {
    assert.ok(existsSync(lab.pinDir));
    lab.bpf.unpin();
    assert.ok(!existsSync(lab.pinDir));
    lab.bpf.close();
    lab.bpf = lab.open();
    assert.equal(lab.bpf.adopted, false);
  });

  it('can be closed twice, and say so when they are used afterwards', () => {
    const second = lab.open();
    second.close();
    second.close();
    second.beat();
    assert.throws(() => second.stats(1), { code: 'EBADF', syscall: 'bpf' });
    assert.throws(() => second.setPolicy(1, lab.call(16).policy), { code: 'EBADF' });
  });

  it('survive process.exit and the end of a worker thread', { timeout }, async () => {
    const options = { object: objectPath, pinDir: lab.pinDir, rootCgroupId: lab.root.id, callLevel: 3 };
    const script = `
      const native = require(${JSON.stringify(addonPath)});
      const bpf = native.openBpf({ ...${JSON.stringify(options)}, events() {} });
      bpf.beat();`;
    const exit = spawnSync(process.execPath, ['-e', `${script} process.exit(7);`], { encoding: 'utf8' });
    assert.equal(exit.status, 7, `${exit.signal} ${exit.stderr}`);
    const worker = new Worker(
      `${script} require('node:worker_threads').parentPort.postMessage(bpf.adopted);`,
      {
        eval: true,
      },
    );
    assert.deepEqual(await once(worker, 'message'), [true]);
    assert.equal(await worker.terminate(), 1);
    const third = lab.open();
    assert.ok(third.adopted);
    third.close();
  });

  it('are refused with a reason', () => {
    const good = {
      object: objectPath,
      pinDir: lab.pinDir,
      rootCgroupId: lab.root.id,
      callLevel: 3,
      events() {},
    };
    const open = (change: object) => () => native.openBpf({ ...good, ...change });
    assert.throws(open({ object: '/absent' }), { code: 'ENOENT', syscall: 'open', path: '/absent' });
    const directory = mkdtempSync(join(tmpdir(), 'agentrm-bpf-'));
    writeFileSync(join(directory, 'object'), 'no ELF file');
    assert.throws(open({ object: join(directory, 'object') }), { syscall: 'bpf', message: /ELF|libbpf/ });
    // Not a BPF file system.
    assert.throws(open({ pinDir: join(directory, 'pins') }), { syscall: 'bpf' });
    rmSync(directory, { recursive: true });
    assert.throws(open({ hooks: ['fentry/absent'] }), { code: 'ENOTSUP', value: 'fentry/absent' });
    assert.throws(open({ callLevel: 1 }), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(open({ events: undefined }), { code: 'ERR_INVALID_ARG_TYPE' });
  });

  it('refuse policies beyond the table', () => {
    const { policy } = lab.call(16);
    assert.throws(
      () => {
        for (let id = 2 ** 40; ; id++) lab.bpf.setPolicy(id, policy);
      },
      { code: 'E2BIG', syscall: 'bpf' },
    );
    assert.throws(() => lab.bpf.setPolicy(-1, policy), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => lab.bpf.setPolicy(1, { ...policy, budgetMs: 2 ** 32 }), {
      code: 'ERR_INVALID_ARG_VALUE',
    });
  });

  it('count the events that nobody took', { timeout: 3 * timeout }, async () => {
    const { cgroup } = lab.call(64);
    lab.bpf.close();
    // Each turn populates and empties the call; all in all more events than the buffer holds.
    const turns = 5000;
    const home = lab.session.child('home');
    const shell = spawn('/bin/sh', [
      '-c',
      `i=0
       while [ $i -lt ${turns} ]; do
         echo 0 > ${cgroup.path}/cgroup.procs
         echo 0 > ${home.path}/cgroup.procs
         i=$((i + 1))
       done`,
    ]);
    assert.equal(await ended(shell), 0);
    lab.bpf = lab.open();
    const dropped = lab.bpf.counters().eventsDropped;
    await until(() => lab.events.length + dropped >= turns);
    assert.ok(dropped > 0);
    assert.equal(lab.events.length + dropped, turns);
  });
});

describe('the sampler', { skip: skip || noTimer, timeout: 10 * timeout }, () => {
  let lab: Lab;
  beforeEach(() => {
    lab = new Lab();
  });
  afterEach(() => lab.close());

  it('knows calls from before and after its start, and forgets removed ones', { timeout }, async () => {
    const { cgroup: before } = lab.call(64);
    lab.bpf.samplerStart();
    const { cgroup: later } = lab.call(64);
    const outside = lab.root.child('s1-not-a-call');
    for (const cgroup of [before, later]) {
      // It holds its memory until it is killed.
      const child = cgroup.spawn('perl', ['-e', '$held = "x" x (24 << 20); sleep']);
      await until(() => lab.bpf.usage(cgroup.id) > 20 * MiB);
      assert.ok(lab.bpf.usage(cgroup.id) <= cgroup.number('memory.peak'));
      child.kill('SIGKILL');
    }
    assert.equal(lab.bpf.usage(outside.id), -1);
    assert.equal(lab.bpf.usage(lab.session.id), -1);
    await later.remove();
    assert.equal(lab.bpf.usage(later.id), -1);
    lab.bpf.deletePolicy(before.id);
    assert.equal(lab.bpf.usage(before.id), -1);
    assert.equal(lab.bpf.counters().samplerErrors, 0);
  });

  it('starts again after there was no call for a while', { timeout }, async () => {
    lab.bpf.samplerStart();
    const { cgroup: first } = lab.call(64);
    await until(() => lab.bpf.usage(first.id) >= 0);
    await first.remove();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const { cgroup: second } = lab.call(64);
    await until(() => lab.bpf.usage(second.id) >= 0);
  });
});
