// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { TestDaemon, until, useMemory } from '../lib/daemon.ts';
import { lastRecord, recordOf } from '../lib/record-of.ts';

const directories = (path: string) =>
  readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => `${path}/${entry.name}`);

describe('a host that is not as it should be', () => {
  test('cgroups that are removed under the daemon are made again', async (context) => {
    const daemon = await new TestDaemon().start();
    context.after(() => daemon.close());
    assert.equal((await daemon.run('true')).code, 0);
    // The first call's own cgroup may still be on its way out, and the spare on its way in.
    await until(() => {
      for (const session of directories(daemon.cgroup)) {
        for (const call of directories(session)) rmdirSync(call);
        rmdirSync(session);
      }
      return directories(daemon.cgroup).length === 0;
    }, 'all cgroups of the daemon are removed').catch(() => {});
    const ran = await daemon.run('cat /proc/self/cgroup');
    assert.equal(ran.code, 0);
    assert.equal(ran.stderr, '');
    assert.match(ran.stdout, /\/s[0-9a-f]{12}\/c[0-9a-f]{12}$/m);
  });

  test('a second daemon for the same cgroups does not start, and touches no call', async (context) => {
    const daemon = await new TestDaemon().start();
    context.after(() => daemon.close());
    const go = `${daemon.dir}/go`;
    const running = daemon.run(`until [ -e ${go} ]; do sleep 0.2; done; exit 3`);
    await until(async () => (await daemon.liveCalls()).length === 1, 'a call runs');
    const second = new TestDaemon({ cgroup: daemon.cgroup });
    await assert.rejects(
      second.start(),
      /agentrmd: \/sys\/fs\/cgroup\/test-\S+: another daemon has this cgroup\n/,
    );
    await second.close();
    assert.equal((await daemon.liveCalls()).length, 1);
    // Its end frees them at once, however it came.
    await daemon.crash();
    await daemon.start();
    assert.equal((await daemon.liveCalls()).length, 1);
    writeFileSync(go, '');
    assert.equal((await running).code, 3);
  });

  test('a tree without the memory controller runs commands unmanaged, and says what is refused', async (context) => {
    // A cgroup that holds a process cannot enable controllers for its children: EBUSY.
    const busy = `/sys/fs/cgroup/busy-${process.pid}`;
    mkdirSync(busy);
    const holder = spawn('sleep', ['1000']);
    writeFileSync(`${busy}/cgroup.procs`, String(holder.pid));
    const daemon = await new TestDaemon({ cgroup: `${busy}/agentrm` }).start();
    context.after(async () => {
      await daemon.close();
      holder.kill('SIGKILL');
      await once(holder, 'exit');
    });
    const { backend } = await daemon.status();
    assert.equal(backend.mode, 'none');
    assert.match(backend.reason ?? '', /busy-\d+.*cgroup\.subtree_control.*EBUSY/s);
    const ran = await daemon.run('echo ran');
    assert.deepEqual([ran.code, ran.stdout], [0, 'ran\n']);
  });

  test('without BPF the daemon itself freezes a call over its line', async (context) => {
    const daemon = await new TestDaemon({ config: 'enforcement:\n  mode: user\n' }).start();
    context.after(() => daemon.close());
    assert.equal((await daemon.status()).backend.mode, 'user');
    const ran = await daemon.run(`${useMemory(150)} && echo done`, {
      env: { AGENTRM_INTENT: 'memory.high=48M memory.max=600M' },
    });
    assert.deepEqual([ran.code, ran.stdout], [0, 'done\n']);
    const record = await lastRecord(daemon);
    const actions = record.decisions.map((decision) => decision.action);
    assert.ok(actions.includes('freeze') && actions.includes('lend'), JSON.stringify(record));
  });

  test('a fork bomb is held by pids.max, and the host and other calls are unharmed', async (context) => {
    const daemon = await new TestDaemon().start();
    context.after(() => daemon.close());
    const bomb = daemon.run('for i in {1..200}; do sleep 60 & done 2>/dev/null; wait', {
      env: { AGENTRM_INTENT: 'pids.max=32 timeout=5s' },
    });
    const { call } = await daemon.event((event) => event.kind === 'call-start');
    const other = await daemon.run('echo fine');
    assert.deepEqual([other.code, other.stdout], [0, 'fine\n']);
    await bomb;
    const record = await recordOf(daemon, { id: String(call) });
    assert.equal(record.command, 'for');
    assert.ok(record.outcome === 'timeout' || record.exitCode !== 0, JSON.stringify(record));
    await until(async () => (await daemon.liveCalls()).length === 0, 'nothing of it is left');
  });

  test('a caller without rights cannot leave its cgroup or change its limits', async (context) => {
    const daemon = await new TestDaemon().start();
    context.after(() => daemon.close());
    const ran = await daemon.run(
      [
        'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)',
        'echo max > $d/memory.high; echo $$ > /sys/fs/cgroup/cgroup.procs; mkdir $d/x',
        'cat /proc/self/cgroup $d/memory.high',
      ].join('\n'),
      { uid: 65534, env: { AGENTRM_INTENT: 'memory.high=64M' } },
    );
    assert.match(ran.stdout, /\/s[0-9a-f]{12}\/c[0-9a-f]{12}\n67108864\n$/, ran.stderr);
    assert.equal(ran.stderr.match(/Permission denied/g)?.length, 3);
  });
});
