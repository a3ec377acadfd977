// SPDX-License-Identifier: Apache-2.0
// A daemon of an ordinary user in a part of the hierarchy that is that user's, without BPF and without rights.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { CallRecord } from '../../daemon/control/types.ts';
import { metric } from '../daemon/peers.ts';
import { agentrmBash, runCommand, TestDaemon, top, until, useMemory } from '../lib/daemon.ts';
import { asUser, Delegated } from '../lib/delegated.ts';
import { lastRecord, recordOf } from '../lib/record-of.ts';
import { callTests } from './call-tests.ts';

const MiB = 1024 * 1024;

describe("a user's own daemon", () => {
  const delegated = new Delegated();
  let daemon: TestDaemon;
  before(async () => {
    daemon = await new TestDaemon({ delegated }).start();
  });
  after(async () => {
    await daemon.close();
    await delegated.close();
  });
  const escapes = (record: CallRecord) => record.decisions.filter(({ action }) => action === 'escaped');

  callTests(() => daemon, { mode: 'user', root: /\/user-[\d-]+\/service\/calls/ });

  test('is that of the user, and sits in a leaf', async () => {
    assert.equal(statSync(`/proc/${daemon.pid}`).uid, delegated.uid);
    const cgroup = readFileSync(`/proc/${daemon.pid}/cgroup`, 'utf8');
    assert.equal(cgroup, `0::${delegated.path.slice('/sys/fs/cgroup'.length)}/service/agentrmd\n`);
    assert.equal((await daemon.status()).cgroup, delegated.calls);
  });

  test('its calls are forked into their cgroups, although their wrapper has no capability', async () => {
    // A process that is moved starts where its parent is; strace shows how it came there.
    const trace = join(daemon.dir, 'trace');
    const [file = '', ...args] = [...daemon.agent, 'strace', '-f', '-o', trace, agentrmBash, '-c', 'true'];
    const ran = await runCommand(file, args, { env: daemon.env() });
    assert.equal(ran.code, 0, ran.stderr);
    assert.match(readFileSync(trace, 'utf8'), /clone3\(\{flags=[A-Z_|]*CLONE_INTO_CGROUP/);
    assert.match(readFileSync(trace, 'utf8'), /clone3[^\n]*\) += [1-9]\d*$/m);
  });

  test('its pool is no larger than what a cgroup above allows', async () => {
    const { pool } = await daemon.status();
    writeFileSync(join(delegated.path, 'memory.max'), String(512 * MiB));
    try {
      // Counted from the next look on what there is; the budget with the next reload.
      const now = (await daemon.status()).pool;
      assert.ok(now.roomBytes < pool.roomBytes && now.roomBytes <= 512 * MiB, JSON.stringify({ pool, now }));
      daemon.signal('SIGHUP');
      await daemon.event(({ kind }) => kind === 'reload');
      const { budgetBytes, reserveBytes } = (await daemon.status()).pool;
      assert.equal(budgetBytes + reserveBytes, 512 * MiB);
    } finally {
      writeFileSync(join(delegated.path, 'memory.max'), 'max');
      daemon.signal('SIGHUP');
      await until(async () => (await daemon.status()).pool.budgetBytes > 512 * MiB, 'the limit is gone');
    }
  });

  test('a process that leaves its call is reported: the command itself', async () => {
    const before = await metric(daemon, 'agentrm_escapes_total');
    const leave = `echo $$ >${delegated.path}/agent/cgroup.procs`;
    const ran = await daemon.run(`${leave}; ${useMemory(8)}; exit 5`);
    assert.equal(ran.code, 5, ran.stderr);
    const record = await lastRecord(daemon);
    assert.equal(escapes(record).length, 1, JSON.stringify(record));
    assert.match(
      escapes(record)[0]?.reason ?? '',
      /^process \d+ \(bash\) moved itself to \/user-[\d-]+\/agent$/,
    );
    const event = await daemon.event(({ kind, call }) => kind === 'escaped' && call === record.id);
    assert.equal(event.comm, 'bash');
    assert.equal(await metric(daemon, 'agentrm_escapes_total'), before + 1);
  });

  test('and one of its descendants, once, but not what stays in the call', async () => {
    const go = join(daemon.dir, 'go');
    const leave = `(echo $BASHPID >${delegated.path}/agent/cgroup.procs; exec tail -f /dev/null) & left=$!`;
    const stay = `d=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); mkdir $d/own; tail -f /dev/null & echo $! >$d/own/cgroup.procs`;
    const running = daemon.run(`${leave}; ${stay}; until [ -e ${go} ]; do sleep 0.1; done; kill $left $!`);
    const { call } = await daemon.event(({ kind, comm }) => kind === 'escaped' && comm === 'tail');
    writeFileSync(go, '');
    assert.equal((await running).code, 0);
    const record = await lastRecord(daemon);
    assert.equal(record.id, call);
    assert.equal(escapes(record).length, 1, JSON.stringify(record));
  });

  test('its calls survive it, and the next daemon has them with their history', async () => {
    const go = join(daemon.dir, 'go-on');
    const running = daemon.run(`${useMemory(100)}; until [ -e ${go} ]; do sleep 0.2; done; exit 3`, {
      env: { AGENTRM_SESSION: 'survives', AGENTRM_INTENT: 'memory.high=48M memory.max=600M' },
    });
    const { call } = await daemon.event(({ kind, session }) => kind === 'lend' && session === 'survives');
    await daemon.crash();
    await daemon.start();
    assert.deepEqual(
      (await daemon.liveCalls()).map(({ id }) => id),
      [call],
    );
    writeFileSync(go, '');
    assert.equal((await running).code, 3);
    const record = await recordOf(daemon, { id: String(call) });
    assert.ok(
      record.decisions.some(({ action }) => action === 'lend'),
      JSON.stringify(record),
    );
  });

  test('what is frozen when it dies is thawed by the guard', async () => {
    const go = join(daemon.dir, 'go-thaw');
    const running = daemon.run(
      `cat /proc/self/cgroup >${daemon.dir}/where; until [ -e ${go} ]; do sleep 0.1; done`,
    );
    const where = join(daemon.dir, 'where');
    await until(() => existsSync(where) && readFileSync(where, 'utf8').endsWith('\n'), 'it runs');
    const path = `/sys/fs/cgroup${readFileSync(where, 'utf8').trim().slice(3)}`;
    writeFileSync(join(path, 'cgroup.freeze'), '1');
    await until(() => readFileSync(join(path, 'cgroup.events'), 'utf8').includes('frozen 1'), 'it is frozen');
    await daemon.crash();
    writeFileSync(go, '');
    assert.equal((await running).code, 0);
    await daemon.start();
  });

  test('a command from outside runs unmanaged, says why, is counted, and doctor says so too', async () => {
    const session = `/sys/fs/cgroup/session-${process.pid}.scope`;
    mkdirSync(session);
    const there = (...command: string[]) => {
      const [file = '', ...args] = [...asUser(delegated.uid, session), ...command];
      return runCommand(file, args, { env: daemon.env() });
    };
    try {
      const ran = await there(agentrmBash, '-c', 'cat /proc/self/cgroup; exit 4');
      assert.deepEqual([ran.code, ran.stdout], [4, `0::/session-${process.pid}.scope\n`]);
      assert.match(
        ran.stderr,
        /^agentrm: running unmanaged: it was started in \/session-.*systemd-run --user/,
      );
      assert.match(await daemon.text('/metrics'), /^agentrm_unmanaged_total\{reason="outside"\} 1$/m);
      const doctor = await there(`${top}dist/agentrm`, 'doctor');
      assert.match(doctor.stdout, /warn +placement +.*session-/);
      const [file = '', ...args] = [...daemon.agent, `${top}dist/agentrm`, 'doctor'];
      const inside = await runCommand(file, args, { env: daemon.env() });
      assert.match(inside.stdout, /placement +.*1 command.* unmanaged/);
    } finally {
      await until(() => {
        try {
          rmdirSync(session);
        } catch {
          return false;
        }
        return true;
      }, 'the session is over');
    }
  });

  test('a clean stop leaves no cgroup of a call behind', async () => {
    await daemon.stop();
    const found = existsSync(delegated.calls)
      ? (await runCommand('find', [delegated.calls, '-mindepth', '2', '-type', 'd'])).stdout
      : '';
    assert.equal(found, '');
  });
});

describe('a user without a cgroup of its own', () => {
  for (const { name, make } of [
    { name: 'that is not delegated', make: (_: string) => undefined },
    {
      name: 'in which others live too',
      make: (path: string) => spawn(asUser(0, path)[0] ?? '', [...asUser(0, path).slice(1), 'sleep', '1000']),
    },
  ]) {
    test(`${name}: commands run unmanaged, and the reason says what to do`, async (context) => {
      const path = `/sys/fs/cgroup/lone-${process.pid}`;
      mkdirSync(path);
      const other = make(path);
      const socket = join('/tmp', `agentrm-${process.pid}.sock`);
      const [file = '', ...args] = [...asUser(1000, path), `${top}dist/agentrmd`, '--socket', socket];
      const child = spawn(file, args, {
        env: { ...process.env, HOME: '/tmp', AGENTRM_PROXY_LISTEN: 'off' },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      context.after(async () => {
        const ended = [child, other].filter((each) => each !== undefined).map((each) => once(each, 'close'));
        child.kill();
        other?.kill();
        await Promise.all(ended);
        rmdirSync(path);
      });
      let log = '';
      for await (const chunk of child.stdout) {
        log += chunk;
        if (log.includes('"msg":"ready"')) break;
      }
      const daemon = new TestDaemon({ socket });
      const { backend } = await daemon.status();
      assert.equal(backend.mode, 'none');
      assert.match(
        backend.reason ?? '',
        /lone-\d+ cannot hold calls: .*; start agentrmd by systemctl --user/,
      );
    });
  }
});
