// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Event } from '../../daemon/control/types.ts';
import { cgroupOf, leftIn } from '../lib/call-cgroups.ts';
import { agentrmBash, TestDaemon, until, useMemory } from '../lib/daemon.ts';

const isStart = (event: Event) => event.kind === 'call-start';

describe('a daemon that dies', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await new TestDaemon().start();
  });
  after(() => daemon.close());

  test('its calls go on within their limits, and the next daemon reports them', async () => {
    const go = `${daemon.dir}/go`;
    const running = daemon.run(`until [ -e ${go} ]; do sleep 0.2; done; exit 3`, {
      env: { AGENTRM_INTENT: 'memory.high=77M memory.max=99M' },
    });
    const { call } = await daemon.event(isStart);
    await daemon.crash();
    const path = cgroupOf(daemon, call);
    assert.equal(readFileSync(`${path}/memory.high`, 'utf8').trim(), String(77 * 1024 * 1024));
    await daemon.start();
    const live = await daemon.liveCalls();
    assert.deepEqual(
      live.map((entry) => [entry.id, entry.state]),
      [[call, 'running']],
    );
    writeFileSync(go, '');
    assert.equal((await running).code, 3);
    const end = await daemon.event((event) => event.kind === 'call-end' && event.call === call);
    const record = end.record as { exitCode: number; outcome: string };
    assert.equal(record.outcome, 'ok');
    assert.equal(record.exitCode, 3);
    await until(() => !existsSync(path), 'its cgroup is gone');
  });

  test('a call that ends without a daemon ends as it would have', async () => {
    const running = daemon.run('sleep 2; echo out; exit 4');
    await daemon.event((event) => isStart(event) && event.command === 'sleep');
    await daemon.crash();
    const ran = await running;
    assert.equal(ran.code, 4);
    assert.equal(ran.stdout, 'out\n');
    await daemon.start();
    assert.deepEqual(await daemon.liveCalls(), []);
    await until(() => leftIn(daemon).length === 0, 'no cgroup is left');
  });

  test('what an agent has left that ended while there was no daemon is ended by the next', async (t) => {
    const go = `${daemon.dir}/go-agent`;
    const command = `tail -f /dev/null >/dev/null & echo; until [ -e ${go} ]; do sleep 0.2; done`;
    const agent = spawn('/usr/bin/perl', ['-e', 'system @ARGV', agentrmBash, '-c', command], {
      env: daemon.env({ AGENTRM_SESSION: 'ended' }),
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    t.after(() => agent.kill('SIGKILL'));
    await once(agent.stdout, 'data');
    const { call } = await daemon.event((event) => isStart(event) && event.session === 'ended');
    const path = cgroupOf(daemon, call);
    await daemon.crash();
    const ended = once(agent, 'exit');
    writeFileSync(go, '');
    await ended;
    assert.ok(readFileSync(`${path}/cgroup.events`, 'utf8').includes('populated 1'));
    await daemon.start();
    await until(() => !existsSync(path), 'its cgroup is gone, and all that was in it');
    await until(() => !existsSync(dirname(path)), 'and that of its session');
  });

  test('a clean stop leaves calls running without throttle, for the next daemon', async () => {
    const go = `${daemon.dir}/go2`;
    const running = daemon.run(`until [ -e ${go} ]; do sleep 0.2; done; true stop`, {
      env: { AGENTRM_INTENT: 'memory.high=77M' },
    });
    await until(async () => (await daemon.liveCalls()).length === 1, 'the call runs');
    const id = (await daemon.liveCalls())[0]?.id;
    assert.equal(await daemon.stop(), 0);
    assert.equal(readFileSync(`${cgroupOf(daemon, id)}/memory.high`, 'utf8').trim(), 'max');
    await daemon.start();
    // Written off the main thread: lowering it may reclaim.
    await until(
      () => readFileSync(`${cgroupOf(daemon, id)}/memory.high`, 'utf8').trim() === String(77 * 1024 * 1024),
      'its memory.high is in force again',
    );
    writeFileSync(go, '');
    assert.equal((await running).code, 0);
  });
});

describe('a daemon that dies while a call is frozen', () => {
  let daemon: TestDaemon;
  // A pool with no room for a loan, and a deadline that does not end the freeze by itself.
  const config = 'pool:\n  budget: 50M\nceiling: memory.max=1G\nenforcement:\n  freezeDeadline: 10m\n';
  before(async () => {
    daemon = await new TestDaemon({ config }).start();
  });
  after(() => daemon.close());

  test('the guard thaws it', async () => {
    const running = daemon.run(`${useMemory(100)} && echo done`, {
      env: { AGENTRM_INTENT: 'memory.high=48M memory.max=52M' },
    });
    const { call } = await daemon.event((event) => event.kind === 'freeze');
    const path = cgroupOf(daemon, call);
    assert.equal(readFileSync(`${path}/cgroup.freeze`, 'utf8').trim(), '1');
    await daemon.crash();
    await until(() => readFileSync(`${path}/cgroup.freeze`, 'utf8').trim() === '0', 'it is thawed');
    // Its memory.max holds without the daemon as well: the kernel ends it.
    assert.notEqual((await running).code, 0);
  });
});
