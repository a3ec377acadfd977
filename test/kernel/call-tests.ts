// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { before, test } from 'node:test';
import { cgroupOf } from '../lib/call-cgroups.ts';
import { agentrmBash, runCommand, type TestDaemon, until, useMemory } from '../lib/daemon.ts';
import { lastRecord } from '../lib/record-of.ts';

const MiB = 1024 * 1024;
/** Allocates and touches, in steps, as programs do; prints at the end what it holds. */
const allocate = (mib: number) =>
  `python3 -c "
import sys
held = []
for _ in range(${mib}):
    held.append(bytearray(b'x') * ${MiB})
print(len(held), 'MiB')
"`;

/**
 * What every tool call is promised, whoever runs the daemon.
 * @param get the daemon, when the tests run.
 * @param expected.mode who enforces.
 * @param expected.root the daemon's cgroup as in /proc/PID/cgroup.
 */
export function callTests(get: () => TestDaemon, expected: { mode: 'bpf' | 'user'; root: RegExp }): void {
  let daemon: TestDaemon;
  before(() => {
    daemon = get();
  });

  test(`enforcement is by ${expected.mode}`, async () => {
    const { backend } = await daemon.status();
    assert.equal(backend.mode, expected.mode, backend.reason ?? '');
    assert.ok(backend.hooks.length > 0);
  });

  test('runs in a cgroup below the root, which is gone afterwards', async () => {
    const ran = await daemon.run('cat /proc/self/cgroup; echo $((6*7))');
    assert.equal(ran.code, 0, ran.stderr);
    assert.equal(ran.stderr, '');
    const [cgroup, sum] = ran.stdout.trim().split('\n');
    assert.match(cgroup ?? '', new RegExp(`^0::${expected.root.source}/s[0-9a-f]{12}/c[0-9a-f]{12}$`));
    assert.equal(sum, '42');
    const record = await lastRecord(daemon);
    assert.equal(record.id, cgroup?.split('/').at(-1));
    assert.equal(record.exitCode, 0);
    assert.equal(record.outcome, 'ok');
    assert.ok(record.memory.peakBytes > 0);
    await until(() => !existsSync(`/sys/fs/cgroup${cgroup?.slice(3)}`), 'its cgroup is gone');
  });

  test('has the limits that its intent declares', async () => {
    const intent = 'memory.high=100M memory.max=200M pids.max=77 cpu.weight=42';
    const ran = await daemon.run(
      'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cd $d; cat memory.high memory.max memory.swap.max memory.oom.group pids.max cpu.weight',
      { env: { AGENTRM_INTENT: intent } },
    );
    assert.deepEqual(ran.stdout.trim().split('\n'), [
      String(100 * MiB),
      String(200 * MiB),
      ...(ran.stdout.split('\n').length > 6 ? ['0'] : []),
      '1',
      '77',
      '42',
    ]);
  });

  test('is frozen at its line, lent memory, and finishes', async () => {
    const ran = await daemon.run(allocate(200), {
      env: { AGENTRM_INTENT: 'memory.high=64M memory.max=600M' },
    });
    assert.equal(ran.code, 0, ran.stderr);
    assert.equal(ran.stdout, '200 MiB\n');
    const record = await lastRecord(daemon);
    assert.equal(record.outcome, 'ok');
    const actions = record.decisions.map((decision) => decision.action);
    assert.ok(actions.includes('freeze'), JSON.stringify(record));
    assert.ok(actions.includes('lend'), JSON.stringify(record));
    assert.ok(record.memory.highEvents > 0);
    const stop = (await daemon.events()).find((event) => event.kind === 'stop' && event.call === record.id);
    assert.ok(stop, 'the stop was reported');
    assert.equal(stop.signalled, expected.mode === 'bpf');
  });

  test('a runaway is killed at its maximum, and the agent reads why', async () => {
    const ran = await daemon.run(useMemory(2000), {
      env: { AGENTRM_INTENT: 'memory.high=64M memory.max=128M' },
    });
    assert.notEqual(ran.code, 0);
    assert.match(ran.stderr, /^agentrm: killed for memory: .*128 MiB.*$/m);
    const record = await lastRecord(daemon);
    assert.equal(record.outcome, 'oom');
    assert.ok(record.memory.oomKills > 0);
    assert.ok(record.memory.peakBytes <= 128 * MiB);
  });

  test('a nested call stays inside its parent', async () => {
    const inner = 'cat /proc/self/cgroup';
    const ran = await daemon.run(
      `cat /proc/self/cgroup; AGENTRM_INTENT=memory.max=max ${process.cwd()}/wrapper/agentrm-bash -c '${inner}'`,
    );
    const [outer, nested] = ran.stdout.trim().split('\n');
    assert.equal(nested, outer);
  });

  test("its exit status and its death by a signal are the command's own", async () => {
    assert.equal((await daemon.run('exit 7')).code, 7);
    const killed = await daemon.run('kill -TERM $$');
    assert.equal(killed.signal, 'SIGTERM');
    assert.equal((await lastRecord(daemon)).signal, 'SIGTERM');
  });

  test('an intent that is no intent is named, and the command still runs', async () => {
    for (const intent of [
      'memory:a[$(touch /tmp/pwned)0]g',
      '-1g',
      'memory.high=0',
      'memory.high=2G memory.max=1G',
    ]) {
      const ran = await daemon.run('echo ran', { env: { AGENTRM_INTENT: intent } });
      assert.equal(ran.stdout, 'ran\n');
      assert.match(ran.stderr, /^agentrm: /);
    }
    assert.equal(existsSync('/tmp/pwned'), false);
  });

  test('what its user makes below it is gone with it', async () => {
    const below = 'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/x/y; mkdir -p $d && echo $d';
    const ran = await daemon.run(below);
    const path = ran.stdout.trim();
    assert.match(path, /\/c[0-9a-f]{12}\/x\/y$/);
    await until(() => !existsSync(dirname(dirname(path))), 'its cgroup is gone');
  });

  test('what it leaves behind is killed when its session ends', async () => {
    const pidFile = `${daemon.dir}/left`;
    // The session is that of the shell in between, which ends as soon as the call has.
    const shell = ['/bin/bash', '-c', `${agentrmBash} -c 'sleep 1000 & echo $! > ${pidFile}'; :`];
    const [file = '', ...args] = [...daemon.agent, ...shell];
    await runCommand(file, args, { env: daemon.env() });
    const pid = readFileSync(pidFile, 'utf8').trim();
    await until(() => !existsSync(`/proc/${pid}`), 'the process is gone');
    await until(
      () =>
        readdirSync(daemon.cgroup, { withFileTypes: true }).filter((entry) => entry.isDirectory()).length <=
        1,
      'its cgroups are gone',
    );
  });

  test("an agent's death ends the calls that it left running, not those of another", async () => {
    // A stand-in for an agent: says which session it is, and has a shell start the wrapper.
    const startAgent = (session: string) => {
      const start = `require('child_process').spawnSync('/bin/sh', ['-c', '"$0" -c "sleep infinity"; :', ${JSON.stringify(agentrmBash)}])`;
      const [file = '', ...args] = [...daemon.agent, process.execPath, '-e', start];
      return spawn(file, args, { env: daemon.env({ AGENTRM_SESSION: session }), stdio: 'ignore' });
    };
    const started = (session: string) =>
      daemon.event((event) => event.kind === 'call-start' && event.session === session);
    const [killed, spared] = [startAgent('killed'), startAgent('spared')];
    try {
      const { call } = await started('killed');
      await started('spared');
      killed.kill('SIGKILL');
      const end = await daemon.event((event) => event.kind === 'call-end' && event.call === call);
      assert.equal((end.record as { outcome: string }).outcome, 'killed');
      await daemon.event((event) => event.kind === 'session-end' && event.session === 'killed');
      const live = await daemon.liveCalls();
      assert.deepEqual(
        live.map((entry) => entry.session),
        ['spared'],
      );
    } finally {
      killed.kill('SIGKILL');
      spared.kill('SIGKILL');
    }
    await daemon.event((event) => event.kind === 'session-end' && event.session === 'spared');
  });

  test("the wrapper's death kills the tree", async () => {
    // What is put before the wrapper executes it: the child is the wrapper.
    const [file = '', ...args] = [...daemon.agent, agentrmBash, '-c', 'tail -f /dev/null'];
    const child = spawn(file, args, { env: daemon.env(), stdio: 'ignore' });
    const { call } = await daemon.event((event) => event.kind === 'call-start' && event.command === 'tail');
    const procs = `${cgroupOf(daemon, call)}/cgroup.procs`;
    await until(() => readFileSync(procs, 'utf8') !== '', 'its tree is there');
    const pids = readFileSync(procs, 'utf8').trim().split('\n');
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    assert.deepEqual(await exited, [null, 'SIGKILL']);
    const end = await daemon.event((event) => event.kind === 'call-end' && event.call === call);
    assert.equal((end.record as { outcome: string }).outcome, 'lost');
    await until(() => !pids.some((pid) => existsSync(`/proc/${pid}`)), 'its tree is gone');
  });
}
