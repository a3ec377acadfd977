// SPDX-License-Identifier: Apache-2.0
// The units as `make install` leaves them, in a machine whose process 1 is systemd.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { metric } from '../daemon/peers.ts';
import { type Ran, runCommand, TestDaemon, top, until } from '../lib/daemon.ts';

const inCall = /^0::\/agentrm\.slice\/agentrm-calls\.service\/calls\/s[0-9a-f]{12}\/c[0-9a-f]{12}\n$/;

async function systemctl(...args: string[]): Promise<string> {
  const ran = await runCommand('systemctl', args);
  assert.equal(ran.code, 0, `systemctl ${args.join(' ')}: ${ran.stderr}`);
  return ran.stdout.trim();
}

describe('the systemd units', () => {
  const daemon = new TestDaemon({ socket: '/run/agentrm/agentrm.sock' });
  const run = (command: string, uid?: number): Promise<Ran> =>
    runCommand('/usr/local/bin/agentrm-bash', ['-c', command], {
      env: { PATH: process.env.PATH ?? '', HOME: daemon.dir },
      ...(uid === undefined ? {} : { uid }),
    });
  /** A call that ends with status 3 when told to. */
  const startCall = async () => {
    const go = `${daemon.dir}/go`;
    const ended = run(`until [ -e ${go} ]; do sleep 0.2; done; rm ${go}; exit 3`);
    await until(async () => (await daemon.liveCalls()).length === 1, 'the call runs');
    const [call] = await daemon.liveCalls();
    return {
      id: call?.id,
      async ends() {
        writeFileSync(go, '');
        const { code, stderr } = await ended;
        assert.deepEqual([code, stderr], [3, '']);
      },
    };
  };
  const mainPid = async (unit = 'agentrmd') =>
    Number(await systemctl('show', '--value', '--property=MainPID', unit));

  before(async () => {
    const installed = await runCommand('make', ['-s', '-C', top, 'install']);
    assert.equal(installed.code, 0, installed.stderr);
    await systemctl('daemon-reload');
    await systemctl('start', 'agentrmd.socket', 'agentrmd.service');
  });
  after(() => daemon.close());

  test('start together, and enforce in the kernel', async () => {
    const units = ['agentrmd.socket', 'agentrmd.service', 'agentrm-calls.service', 'agentrm-guard.service'];
    assert.equal(await systemctl('is-active', ...units), 'active\nactive\nactive\nactive');
    const status = await daemon.status();
    assert.equal(status.backend.mode, 'bpf');
    assert.equal(status.pid, await mainPid());
    // What the hardening of the unit forbids would show here.
    assert.deepEqual(
      (await daemon.events()).filter((event) => event.kind === 'degraded'),
      [],
    );
  });

  test('every user gets cgroups below agentrm-calls.service, by a fork into them', async () => {
    for (const uid of [0, 65_534]) {
      const ran = await run('cat /proc/self/cgroup; cat /proc/self/status | grep Cap', uid);
      const [cgroup, ...capabilities] = ran.stdout.split(/(?<=\n)/);
      assert.match(cgroup ?? ran.stderr, inCall);
      // The capability of the installed wrapper is not the command's.
      if (uid !== 0) for (const line of capabilities.slice(0, 3)) assert.match(line, /\t0{16}\n$/);
    }
  });

  test('a restart of the daemon touches no call', async () => {
    const call = await startCall();
    const before = await mainPid();
    await systemctl('restart', 'agentrmd.service');
    assert.notEqual(await mainPid(), before);
    assert.deepEqual(
      (await daemon.liveCalls()).map(({ id }) => id),
      [call.id],
    );
    await call.ends();
  });

  test('a daemon that is killed comes back and takes its calls over', async () => {
    const call = await startCall();
    const before = await mainPid();
    process.kill(before, 'SIGKILL');
    await until(async () => ![0, before].includes(await mainPid()), 'systemd has started another');
    // The socket is systemd's: this waits until the new daemon serves it.
    const live = await daemon.liveCalls();
    assert.deepEqual(
      live.map(({ id }) => id),
      [call.id],
    );
    await call.ends();
  });

  test('a guard that is killed comes back while calls live', async () => {
    const call = await startCall();
    const before = await mainPid('agentrm-guard');
    process.kill(before, 'SIGKILL');
    await until(async () => ![0, before].includes(await mainPid('agentrm-guard')), 'there is another');
    await call.ends();
  });

  test('nobody stops the unit of the calls by mistake', async () => {
    const ran = await runCommand('systemctl', ['stop', 'agentrm-calls.service']);
    assert.match(ran.stderr, /refused/);
    assert.match((await run('cat /proc/self/cgroup')).stdout, inCall);
  });

  test('a reload takes the new configuration, and keeps the old one if the new one is wrong', async () => {
    const path = '/etc/agentrm/agentrmd.yaml';
    const sample = readFileSync(path, 'utf8');
    const taken = () => metric(daemon, 'agentrm_config_reload_success');
    writeFileSync(path, `${sample}\nnonsense: 1\n`);
    await systemctl('reload', 'agentrmd.service');
    // Read by a process of its own, which would see the next one if that were there already.
    await until(async () => (await taken()) === 0, 'it is refused');
    writeFileSync(path, `${sample}\ndefaults: memory.high=77M\n`);
    await systemctl('reload', 'agentrmd.service');
    await until(async () => (await daemon.events()).some(({ kind }) => kind === 'reload'), 'it is taken');
    assert.equal(await systemctl('is-active', 'agentrmd.service'), 'active');
    const { stdout } = await run('cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.high');
    assert.equal(stdout, `${77 * 1024 * 1024}\n`);
  });

  test('the journal has the priorities of the log', async () => {
    const args = ['-D', '/run/log/journal', '-u', 'agentrmd', '-o', 'json'];
    let stdout = '';
    let entries: { PRIORITY: string; MESSAGE: string }[] = [];
    const of = (text: string) => entries.find(({ MESSAGE }) => MESSAGE.includes(text));
    // The daemon writes its log off the main thread, and journald when it comes to it.
    await until(async () => {
      ({ stdout } = await runCommand('journalctl', args));
      entries = stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line));
      return of('"msg":"ready"') !== undefined && of('"msg":"configuration kept"') !== undefined;
    }, 'the journal has it');
    assert.equal(of('"msg":"ready"')?.PRIORITY, '6', stdout);
    assert.equal(of('"msg":"configuration kept"')?.PRIORITY, '3');
    assert.ok(of('"msg":"ready"')?.MESSAGE.startsWith('{'));
    assert.equal(of('Got notification message'), undefined);
  });

  // The last one: what comes after it in this machine finds none of it, a user's own daemon for instance.
  test('uninstalled, it leaves what runs alone and nothing else behind', async () => {
    const call = await startCall();
    const { code, stderr } = await runCommand('make', ['-s', '-C', top, 'uninstall']);
    assert.equal(code, 0, stderr);
    assert.ok(!existsSync('/sys/fs/bpf/agentrm'), 'no program is left that nobody looks after');
    await call.ends();
    const { stdout: loaded } = await runCommand('systemctl', [
      'list-units',
      '--all',
      '--plain',
      'agentrm*.service',
    ]);
    assert.doesNotMatch(loaded, /agentrm-?(d|calls|guard)\.service .* (active|failed)/);
    const { stdout: left } = await runCommand('find', ['/usr/local', '/run', '-xdev', '-name', 'agentrm*']);
    // The unit that this test runs in stays.
    assert.equal(left, '/run/systemd/system/agentrm-vm.service\n');
    await until(
      () => !existsSync('/sys/fs/cgroup/agentrm.slice/agentrm-calls.service'),
      'its cgroup is gone',
    );
    assert.ok(existsSync('/etc/agentrm/agentrmd.yaml'));
  });
});
