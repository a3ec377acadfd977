// SPDX-License-Identifier: Apache-2.0
// The units of an ordinary user as `make install` leaves them, under systemd --user.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { type Ran, runCommand, TestDaemon, top, until, useMemory } from '../lib/daemon.ts';
import { lastRecord, recordOf } from '../lib/record-of.ts';

const uid = 1234;
const runtime = `/run/user/${uid}`;
const manager = `/user.slice/user-${uid}.slice/user@${uid}.service`;
const inCall = new RegExp(
  `^0::${manager}/agentrm\\.slice/agentrm-calls\\.service/calls/s[0-9a-f]{12}/c[0-9a-f]{12}\\n`,
);

async function must(...[file = '', ...args]: string[]): Promise<string> {
  const ran = await runCommand(file, args);
  assert.equal(ran.code, 0, `${file} ${args.join(' ')}: ${ran.stderr}`);
  return ran.stdout.trim();
}

describe('the units of an ordinary user', () => {
  const daemon = new TestDaemon({ socket: `${runtime}/agentrm/agentrm.sock` });
  /** As a login has it, but for the place: this is the test's own service, which is the system's. */
  const asUser = (...command: string[]): Promise<Ran> =>
    runCommand('setpriv', ['--reuid', String(uid), '--regid', String(uid), '--clear-groups', ...command], {
      env: { PATH: process.env.PATH ?? '', HOME: '/home/agent', XDG_RUNTIME_DIR: runtime },
    });
  const systemctl = async (...args: string[]): Promise<string> => {
    const ran = await asUser('systemctl', '--user', ...args);
    assert.equal(ran.code, 0, `systemctl --user ${args.join(' ')}: ${ran.stderr}`);
    return ran.stdout.trim();
  };
  const wrapper = '/usr/local/bin/agentrm-bash';
  const mainPid = async () => Number(await systemctl('show', '--value', '--property=MainPID', 'agentrmd'));

  before(async () => {
    await must('make', '-s', '-C', top, 'install');
    await must('useradd', '--create-home', '--uid', String(uid), 'agent');
    await must('systemctl', 'daemon-reload');
    await must('systemctl', 'start', 'dbus.socket', 'systemd-logind.service');
    // What a login starts, or `loginctl enable-linger`.
    await must('systemctl', 'start', `user@${uid}.service`);
    await systemctl('start', 'agentrmd.socket', 'agentrmd.service');
  });
  after(() => daemon.close());

  test('start together, without any right of root', async () => {
    const units = ['agentrmd.socket', 'agentrmd.service', 'agentrm-calls.service', 'agentrm-guard.service'];
    assert.equal(await systemctl('is-active', ...units), 'active\nactive\nactive\nactive');
    const status = await daemon.status();
    assert.deepEqual([status.backend.mode, status.uid, status.pid], ['user', uid, await mainPid()]);
    const left = status.backend.degraded.filter((reason) => !/no BPF|the io controller/.test(reason));
    assert.deepEqual(left, []);
  });

  test('an agent in a scope of the user: its calls are forked into their cgroups', async () => {
    const ran = await asUser(
      'systemd-run',
      '--user',
      '--scope',
      '--quiet',
      wrapper,
      '-c',
      'cat /proc/self/cgroup; cat /proc/self/status',
    );
    assert.match(ran.stdout, inCall, ran.stderr);
    assert.match(ran.stdout, /^CapPrm:\t0{16}$/m);
    assert.equal(ran.stderr, '');
  });

  test('an agent from outside of the user manager, as in a login: process 1 moves its calls', async () => {
    const ran = await asUser(wrapper, '-c', 'cat /proc/self/cgroup; exit 3');
    assert.match(ran.stdout, inCall, ran.stderr);
    assert.deepEqual([ran.code, ran.stderr], [3, '']);
    const { exitCode, decisions } = await lastRecord(daemon);
    assert.deepEqual([exitCode, decisions], [3, []]);
    const doctor = await asUser('/usr/local/bin/agentrm', 'doctor');
    assert.match(doctor.stdout, /ok +placement/);
    await until(
      () => existsSync('/home/agent/.local/state/agentrm/agentrm.db'),
      'calls are in its own database',
    );
  });

  test('limits hold, and what is lent lets it finish', async () => {
    const run = (intent: string, mib: number) =>
      asUser(
        'systemd-run',
        '--user',
        '--scope',
        '--quiet',
        `--setenv=AGENTRM_INTENT=${intent}`,
        wrapper,
        '-c',
        `${useMemory(mib)}; exit`,
      );
    const lent = await run('memory.high=48M memory.max=600M', 150);
    assert.equal(lent.code, 0, lent.stderr);
    assert.ok((await lastRecord(daemon)).decisions.some(({ action }) => action === 'lend'));
    const killed = await run('memory.high=48M memory.max=64M', 500);
    assert.match(killed.stderr, /^agentrm: killed for memory: .*64 MiB/m);
    assert.equal((await lastRecord(daemon)).outcome, 'oom');
  });

  test('a daemon that is killed comes back and takes its calls over', async () => {
    const go = '/home/agent/go';
    const ended = asUser(
      'systemd-run',
      '--user',
      '--scope',
      '--quiet',
      wrapper,
      '-c',
      `until [ -e ${go} ]; do sleep 0.2; done; exit 7`,
    );
    await until(async () => (await daemon.liveCalls()).length === 1, 'the call runs');
    const [call] = await daemon.liveCalls();
    const before = await mainPid();
    process.kill(before, 'SIGKILL');
    await until(async () => ![0, before].includes(await mainPid()), 'there is another');
    assert.deepEqual(
      (await daemon.liveCalls()).map(({ id }) => id),
      [call?.id],
    );
    writeFileSync(go, '');
    assert.equal((await ended).code, 7);
    assert.equal((await recordOf(daemon, { id: String(call?.id) })).exitCode, 7);
  });

  test('with the manager of the user everything ends', async () => {
    const running = asUser('systemd-run', '--user', '--scope', '--quiet', wrapper, '-c', 'tail -f /dev/null');
    await until(async () => (await daemon.liveCalls()).length === 1, 'the call runs');
    await must('systemctl', 'stop', `user@${uid}.service`);
    assert.notEqual((await running).code, 0);
    await until(() => !existsSync(`/sys/fs/cgroup${manager}`), 'its cgroups are gone');
    assert.deepEqual(processesOf(uid), []);
  });
});

/** Pids of a user's processes. */
function processesOf(uid: number): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && statSync(`/proc/${pid}`).uid === uid;
    } catch {
      return false; // it has ended
    }
  });
}
