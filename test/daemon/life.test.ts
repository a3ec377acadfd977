// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runCommand, TestDaemon, top, until } from '../lib/daemon.ts';
import { heard, metric, open, tell } from './peers.ts';

async function started(t: TestContext, config = ''): Promise<TestDaemon> {
  const daemon = new TestDaemon({ config });
  t.after(() => daemon.close());
  return daemon.start();
}

const agentrmd = (...args: string[]) => runCommand(`${top}dist/agentrmd`, args, { timeoutMs: 60_000 });

/** A port on which nobody listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}

test('a list of calls that the database does not answer for says so', async (t) => {
  const daemon = new TestDaemon();
  t.after(() => daemon.close());
  // In the place of its directory.
  writeFileSync(`${daemon.dir}/state`, '');
  await daemon.start();
  const calls = () => runCommand(`${top}dist/agentrm`, ['--socket', daemon.socket, 'calls', '--json']);
  const { code, stdout, stderr } = await calls();
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(stderr, /^agentrm: not all calls are listed: EEXIST.*\n$/);
  rmSync(`${daemon.dir}/state`);
  const again = await calls();
  assert.deepEqual([again.code, again.stdout, again.stderr], [0, '', '']);
});

test('a second daemon refuses and leaves the first alone', async (t) => {
  const daemon = await started(t);
  const second = await agentrmd('--config', daemon.configPath, '--socket', daemon.socket);
  assert.equal(second.code, 1);
  assert.equal(second.stderr, `agentrmd: ${daemon.socket}: another daemon answers there\n`);
  assert.equal((await daemon.status()).pid, daemon.pid);
});

test('the socket of a daemon that died is replaced', async (t) => {
  const daemon = await started(t);
  await daemon.crash();
  assert.ok(existsSync(daemon.socket));
  await daemon.start();
  assert.equal((await daemon.status()).pid, daemon.pid);
});

test('a file that is no socket is not replaced', async (t) => {
  const daemon = new TestDaemon();
  t.after(() => daemon.close());
  mkdirSync(dirname(daemon.socket));
  writeFileSync(daemon.socket, 'precious');
  const ran = await agentrmd('--config', daemon.configPath, '--socket', daemon.socket);
  assert.equal(ran.code, 1);
  assert.match(ran.stderr, /agentrm\.sock: is there, and is no socket\n$/);
  assert.equal(readFileSync(daemon.socket, 'utf8'), 'precious');
});

for (const { what, remove } of [
  { what: 'the socket', remove: (daemon: TestDaemon) => rmSync(daemon.socket) },
  {
    what: 'its directory',
    remove: (daemon: TestDaemon) => rmSync(dirname(daemon.socket), { recursive: true }),
  },
]) {
  test(`somebody removes ${what}: it is there again, and who was connected still is`, async (t) => {
    const daemon = await started(t);
    for (const round of [1, 2]) {
      const known = (await daemon.events()).at(-1)?.seq ?? 0;
      const told = daemon.event(
        ({ seq, error }) => seq > known && /^the socket was removed/.test(String(error)),
      );
      // Who has been answered after it shows that it was let in: what still waits is lost with the old socket.
      await daemon.status();
      remove(daemon);
      await told;
      assert.equal((await daemon.status()).pid, daemon.pid, `round ${round}`);
      assert.equal(statSync(daemon.socket).mode & 0o777, 0o666);
      await until(() => existsSync(`${dirname(daemon.socket)}/heartbeat`), 'the guard finds the heartbeat');
    }
    const second = await agentrmd('--config', daemon.configPath, '--socket', daemon.socket);
    assert.match(second.stderr, /another daemon answers there/);
    assert.equal(await daemon.stop(), 0);
    assert.ok(!existsSync(daemon.socket));
  });
}

test('its directory cannot be had again: it fails, so that it is started again', async (t) => {
  const daemon = await started(t);
  rmSync(dirname(daemon.socket), { recursive: true });
  writeFileSync(dirname(daemon.socket), 'in the way');
  assert.equal(await daemon.ended(), 1);
  assert.equal(readFileSync(dirname(daemon.socket), 'utf8'), 'in the way');
  rmSync(dirname(daemon.socket));
  await daemon.start();
  assert.equal((await daemon.status()).pid, daemon.pid);
});

test('init passes a socket that no path leads to, and one that died lies there: it is replaced', async (t) => {
  const before = await started(t);
  await before.crash();
  const init = createServer();
  t.after(() => init.close());
  await new Promise<void>((resolve) => init.listen(`${before.dir}/elsewhere`, resolve));
  const { fd: listening } = (init as unknown as { _handle: { fd: number } })._handle;
  const daemon = new TestDaemon({ socket: before.socket, listening });
  t.after(() => daemon.close());
  await daemon.start();
  assert.equal((await daemon.status()).pid, daemon.pid);
  assert.equal(statSync(daemon.socket).mode & 0o777, 0o666);
  assert.equal(await daemon.stop(), 0);
});

test('another file in the place of the socket is left alone', async (t) => {
  const daemon = await started(t);
  // In one step: in between the daemon may have made its own again.
  writeFileSync(`${daemon.dir}/precious`, 'precious');
  renameSync(`${daemon.dir}/precious`, daemon.socket);
  // The heartbeat is looked for after the socket.
  rmSync(`${dirname(daemon.socket)}/heartbeat`);
  await until(() => existsSync(`${dirname(daemon.socket)}/heartbeat`), 'it has looked');
  assert.equal(readFileSync(daemon.socket, 'utf8'), 'precious');
  rmSync(daemon.socket);
  const isSocket = () => statSync(daemon.socket, { throwIfNoEntry: false })?.isSocket() === true;
  // It is there before anybody listens on it, and open to all after that.
  const isOpen = () => isSocket() && (statSync(daemon.socket).mode & 0o777) === 0o666;
  await until(isOpen, 'there is room for the socket again');
  assert.equal((await daemon.status()).pid, daemon.pid);
});

test('flags and configurations that are wrong: exit 2, and where', async (t) => {
  const daemon = new TestDaemon({ config: 'log:\n  lvl: info\n' });
  t.after(() => daemon.close());
  for (const args of [['--nonsense'], ['--socket'], ['surplus'], ['--log-level', 'loud']]) {
    const ran = await agentrmd(...args);
    assert.equal(ran.code, 2, `${args.join(' ')}: ${ran.stderr}`);
    assert.notEqual(ran.stderr, '');
  }
  const ran = await agentrmd('--config', daemon.configPath);
  assert.equal(ran.code, 2);
  assert.match(ran.stderr, /^agentrmd: .*agentrmd\.yaml:3:3: log\.lvl: unknown key\n$/);
});

test('--version and --help say so much and start nothing', async () => {
  const { version } = JSON.parse(readFileSync(`${top}package.json`, 'utf8')) as { version: string };
  const said = { code: 0, signal: null, stdout: `${version}\n`, stderr: '' };
  assert.deepEqual(await agentrmd('--version'), said);
  const help = await agentrmd('--help');
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^Usage: agentrmd \[options\]$/m);
});

test('SIGHUP: a bad configuration is not taken, a good one is', async (t) => {
  const daemon = await started(t);
  const good = readFileSync(daemon.configPath, 'utf8');
  writeFileSync(daemon.configPath, `${good}nonsense: 1\n`);
  daemon.signal('SIGHUP');
  await until(async () => (await metric(daemon, 'agentrm_config_reload_success')) === 0, 'it is refused');
  // The log is written by another thread.
  await until(() => /agentrmd\.yaml:2:1: nonsense: unknown key/.test(daemon.log), 'the log says why');
  writeFileSync(
    daemon.configPath,
    `${good}connections: { handshake: 1s }\nwrapper: { failClosed: true }\nlog: { level: debug }\n`,
  );
  assert.doesNotMatch(daemon.log, /"level":"debug"/);
  daemon.signal('SIGHUP');
  await until(async () => (await metric(daemon, 'agentrm_config_reload_success')) === 1, 'it is taken');
  assert.ok(existsSync(`${dirname(daemon.socket)}/fail-closed`));
  assert.equal(await tell(daemon, '{'), '');
  await until(() => /"level":"debug".*"component":"control".*dropped/.test(daemon.log), 'it says more now');
});

test('fail-closed where nothing can be enforced: no command runs, unless that is how it is configured', async (t) => {
  const config = 'wrapper: { failClosed: true, badIntent: refuse }\n';
  const daemon = await new TestDaemon({ config, cgroup: '/proc/no-cgroup' }).start();
  t.after(() => daemon.close());
  assert.equal((await daemon.status()).backend.mode, 'none');
  const refused = await daemon.run('echo ran');
  assert.deepEqual(
    [refused.code, refused.stdout, refused.stderr],
    [125, '', 'agentrm: nothing is enforced here, not run (fail-closed)\n'],
  );
  const bad = await daemon.run('echo ran', { env: { AGENTRM_INTENT: 'memory.high=lots' } });
  assert.deepEqual([bad.code, bad.stdout], [125, '']);
  assert.match(bad.stderr, /^agentrm: .*"memory\.high=lots".*\n$/);
  writeFileSync(daemon.configPath, `${readFileSync(daemon.configPath, 'utf8')}enforcement: { mode: off }\n`);
  daemon.signal('SIGHUP');
  await daemon.event(({ kind }) => kind === 'reload');
  assert.equal((await daemon.run('echo ran')).stdout, 'ran\n');
});

test('an intent that cannot be read is named where nothing is enforced, too', async (t) => {
  const daemon = await new TestDaemon({ cgroup: '/proc/no-cgroup' }).start();
  t.after(() => daemon.close());
  const { code, stdout, stderr } = await daemon.run('echo ran', {
    env: { AGENTRM_INTENT: 'memory.high=lots' },
  });
  assert.deepEqual([code, stdout], [0, 'ran\n']);
  assert.match(stderr, /^agentrm: .*"memory\.high=lots".*\n$/);
});

test('SIGTERM with open connections: a prompt, clean end', async (t) => {
  const daemon = await started(t);
  const sockets = await Promise.all(Array.from({ length: 50 }, () => open(daemon)));
  const follower = await open(daemon);
  follower.write('GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n');
  const ends = Promise.all([...sockets, follower].map(heard));
  await daemon.status();
  assert.equal(await daemon.stop(), 0);
  await ends;
  assert.ok(!existsSync(daemon.socket));
});

test('the daemon of a replay ends in order with the replay, even if that is killed', async (t) => {
  const holder = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `const { PrivateDaemon } = await import(${JSON.stringify(`file://${top}daemon/replay/private-daemon.ts`)});
       const { socket } = await PrivateDaemon.start('/sys/fs/cgroup/test-held-${process.pid}', 2 ** 28);
       console.log(socket);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.after(() => holder.kill('SIGKILL'));
  const [line] = (await once(holder.stdout, 'data')) as [Buffer];
  const socket = line.toString().trim();
  const daemon = new TestDaemon({ socket });
  t.after(() => daemon.close());
  const { pid } = await daemon.status();
  assert.notEqual(pid, holder.pid);
  t.after(() => {
    if (existsSync(socket)) process.kill(pid, 'SIGKILL');
    rmSync(dirname(dirname(socket)), { recursive: true });
    rmSync(`/sys/fs/bpf/agentrm-replay-${holder.pid}`, { recursive: true, force: true });
  });
  holder.kill('SIGKILL');
  // One that was killed leaves its socket behind, one that stops takes it away.
  await until(() => !existsSync(socket), 'it has stopped');
});

test('a state directory that cannot be used stops no command', async (t) => {
  const daemon = new TestDaemon();
  t.after(() => daemon.close());
  writeFileSync(`${daemon.dir}/state`, 'a file where a directory should be');
  await daemon.start();
  assert.equal((await daemon.run('echo runs')).stdout, 'runs\n');
  assert.deepEqual(await daemon.calls(), []);
  assert.equal((await daemon.status()).pid, daemon.pid);
  assert.equal(await daemon.stop(), 0);
});

test('a full disk stops neither a command nor a reload', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root to mount a small tmpfs');
  const daemon = new TestDaemon();
  const state = `${daemon.dir}/state`;
  mkdirSync(state);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k,nr_inodes=2', 'tmpfs', state]);
  } catch {
    rmSync(daemon.dir, { recursive: true });
    return t.skip('cannot mount a tmpfs here');
  }
  t.after(async () => {
    await daemon.stop();
    execFileSync('umount', [state]);
    await daemon.close();
  });
  assert.notEqual((await runCommand('dd', ['if=/dev/zero', `of=${state}/full`, 'bs=4k'])).code, 0);
  await daemon.start();
  assert.equal((await daemon.run('echo runs')).stdout, 'runs\n');
  assert.deepEqual(await daemon.calls(), []);
  daemon.signal('SIGHUP');
  await until(() => daemon.log.includes('configuration reloaded'), 'it is reloaded');
});

test('a user sees neither calls nor events of others, and all may see health', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root to be two users');
  const daemon = await started(t);
  execFileSync('chmod', ['755', daemon.dir]);
  const ask = async (path: string) =>
    (await runCommand('curl', ['-sS', '--unix-socket', daemon.socket, `http://x${path}`], { uid: 12_345 }))
      .stdout;
  await daemon.run('true', { env: { AGENTRM_INTENT: 'nonsense' } });
  assert.equal(await ask('/v1/calls?live=1'), '');
  assert.equal(await ask('/v1/sessions'), '{"sessions":[]}\n');
  assert.equal(await ask('/healthz'), 'ok\n');
  assert.match(await ask('/v1/status'), /"mode":/);
});

test('metrics and health on TCP, nothing else', async (t) => {
  const port = await freePort();
  const daemon = await started(t, `metrics: { listen: '127.0.0.1:${port}' }\n`);
  const ask = (path: string) => fetch(`http://127.0.0.1:${port}${path}`);
  assert.match(await (await ask('/metrics')).text(), /^agentrm_build_info/m);
  assert.equal((await ask('/healthz')).status, 200);
  assert.ok([200, 503].includes((await ask('/readyz')).status));
  for (const path of ['/v1/status', '/v1/events?follow=1', '/nothing']) {
    assert.equal((await ask(path)).status, 403, path);
  }
  assert.equal(await daemon.stop(), 0);
  await assert.rejects(ask('/healthz'));
});

test('a TCP address that is taken is reported, and no more', async (t) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  t.after(() => taken.close());
  const address = taken.address();
  const port = typeof address === 'object' ? address?.port : 0;
  const daemon = await started(t, `metrics: { listen: '127.0.0.1:${port}' }\n`);
  const { degraded } = (await daemon.status()).backend;
  assert.ok(
    degraded.some((entry) => /^no metrics on TCP: .*EADDRINUSE/.test(entry)),
    degraded.join('\n'),
  );
});

test('all users together may have so many connections; root still gets in', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('needs root to be two users');
  const daemon = await started(t, 'connections: { total: 3, handshake: 1m }\n');
  execFileSync('chmod', ['755', daemon.dir]);
  const sockets = await Promise.all(Array.from({ length: 3 }, () => open(daemon)));
  const curl = ['-sS', '--unix-socket', daemon.socket, 'http://x/healthz'];
  assert.notEqual((await runCommand('curl', curl, { uid: 12_345 })).code, 0);
  assert.equal((await runCommand('curl', curl)).stdout, 'ok\n');
  assert.equal(await metric(daemon, 'agentrm_connections_refused_total{reason="too-many"}'), 1);
  for (const socket of sockets) socket.destroy();
});

test('a daemon with nothing to do does next to nothing', async (t) => {
  const daemon = await started(t);
  const cpuSeconds = () => metric(daemon, 'agentrm_process_cpu_seconds_total');
  const during = async (work: () => Promise<unknown>) => {
    const before = await cpuSeconds();
    await work();
    return (await cpuSeconds()) - before;
  };
  const windowMs = 3000;
  // Before it: what a first request loads.
  await during(async () => {});
  const busy = await during(async () => {
    const until = performance.now() + windowMs;
    while (performance.now() < until) await daemon.text('/healthz');
  });
  const idle = await during(() => new Promise((resolve) => setTimeout(resolve, windowMs)));
  assert.ok(idle < busy / 10, `idle ${idle} s, busy ${busy} s of ${windowMs} ms`);
});
