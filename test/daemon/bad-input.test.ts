// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';
import { runCommand, TestDaemon, until } from '../lib/daemon.ts';
import { descriptors, heard, open, refused, tell } from './peers.ts';

const run = (changes: object = {}) =>
  `${JSON.stringify({ op: 'run', v: 1, argv: ['/bin/bash', '-c', 'true'], ...changes })}\n`;

describe('bad input on the socket', () => {
  let daemon: TestDaemon;
  let counted = new Map<string, number>();
  const reasons = ['silent', 'malformed', 'too-long', 'out-of-order', 'too-many'];
  before(async () => {
    daemon = await new TestDaemon({ config: 'connections: { handshake: 1s, perUid: 1500 }\n' }).start();
  });
  after(() => daemon.close());
  beforeEach(async () => {
    counted = new Map(
      await Promise.all(reasons.map(async (reason) => [reason, await refused(daemon, reason)] as const)),
    );
  });
  const grown = async (reason: string) => (await refused(daemon, reason)) - (counted.get(reason) ?? 0);

  test('half a message, then silence: dropped', async () => {
    assert.equal(await tell(daemon, '{"op":"run","v":1,'), '');
    assert.equal(await grown('silent'), 1);
  });

  test('a byte now and then does not keep a connection', async () => {
    const socket = await open(daemon);
    const timer = setInterval(() => socket.write(' '), 50);
    socket.write('{');
    await heard(socket);
    clearInterval(timer);
    assert.equal(await grown('silent'), 1);
  });

  test('half an HTTP request, then silence: dropped', async () => {
    assert.equal(await tell(daemon, 'GET /v1/status HTTP/1.1\r\nHost: x\r\n'), '');
    assert.equal(await grown('silent'), 1);
  });

  test('10 MiB without an end of line: dropped', async () => {
    assert.equal(await tell(daemon, Buffer.alloc(10 * 2 ** 20, '{')), '');
    assert.equal(await grown('too-long'), 1);
  });

  test('a message of 64 KiB is taken', async () => {
    const filler = 'x'.repeat(64 * 1024 - run({ cwd: '' }).length - 1);
    assert.equal(await tell(daemon, run({ cwd: filler })), 'go - none -\n');
  });

  for (const [name, bytes] of Object.entries({
    'no JSON': '{junk\n',
    'bytes that are not UTF-8': Buffer.from([0x7b, 0xff, 0xfe, 0x00, 0x0a]),
    'another version': run({ v: 2 }),
    'an unknown operation': '{"op":"shutdown","v":1}\n',
    'arguments of another type': run({ argv: 'true' }),
    'more arguments than a line should have': run({ argv: new Array(5000).fill('') }),
    'deep nesting': `{"op":${'['.repeat(60_000)}\n`,
  })) {
    test(`${name}: dropped once, what follows is not read`, async () => {
      assert.equal(
        await tell(daemon, Buffer.concat([Buffer.from(bytes), Buffer.from(`{\n{\n${run()}`)])),
        '',
      );
      assert.equal(await grown('malformed'), 1);
    });
  }

  for (const message of ['{"op":"end","code":0}\n', '{"op":"late"}\n']) {
    test(`${message.trim()} before anything else: dropped`, async () => {
      assert.equal(await tell(daemon, message), '');
      assert.equal(await grown('out-of-order'), 1);
    });
  }

  test('a token and a call that nobody has', async () => {
    assert.equal(await tell(daemon, '{"op":"place","v":1,"token":"0123"}\n'), 'failed no such call\n');
    assert.equal(await tell(daemon, '{"op":"adopt","v":1,"call":"c000000000000"}\n'), 'gone\n');
    assert.equal(await tell(daemon, '{"op":"adopt","v":1,"call":"__proto__"}\n'), 'gone\n');
  });

  test('no HTTP: 400, and counted', async () => {
    assert.match(await tell(daemon, '\x16\x03\x01 hello\r\n\r\n'), /^HTTP\/1\.1 400 /);
    assert.equal(await grown('malformed'), 1);
  });

  test('headers of 1 MiB are refused', async () => {
    const answer = await tell(daemon, `GET / HTTP/1.1\r\nX: ${'x'.repeat(2 ** 20)}\r\n\r\n`);
    assert.doesNotMatch(answer, /^HTTP\/1\.1 [23]/);
    assert.equal(await grown('malformed'), 1);
  });

  test('odd requests are answered, not obeyed', async () => {
    const ask = (line: string) => tell(daemon, `${line} HTTP/1.1\r\nHost: x\r\n\r\n`);
    assert.match(await ask('GET //'), /^HTTP\/1\.1 400 /);
    assert.match(await ask('GET /nothing'), /^HTTP\/1\.1 404 /);
    assert.match(await ask('GET /v1/calls?limit=-1'), /^HTTP\/1\.1 400 /);
    assert.match(await ask('DELETE /v1/calls'), /^HTTP\/1\.1 405 /);
    assert.match(await ask('GET /v1/../../etc/passwd'), /^HTTP\/1\.1 404 /);
  });

  test('a second request on one connection is not served', async () => {
    const request = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n';
    const answer = await tell(daemon, request + request);
    assert.equal(answer.split('HTTP/1.1 200').length - 1, 1);
  });

  test('1,000 connections that say nothing: others are served meanwhile', async () => {
    const silent = await Promise.all(Array.from({ length: 1000 }, () => open(daemon)));
    const ends = Promise.all(silent.map(heard));
    const ran = await daemon.run('echo served');
    assert.equal(ran.stdout, 'served\n');
    await ends;
    assert.equal(await grown('silent'), 1000);
  });

  test('a user may have so many connections and no more; another one is served', async (t) => {
    if (process.getuid?.() !== 0) return t.skip('needs root to be two users');
    // Of its own: nobody may be dropped for being silent before all are there.
    const few = await new TestDaemon({ config: 'connections: { handshake: 5m, perUid: 100 }\n' }).start();
    t.after(() => few.close());
    const mine = await Promise.all(Array.from({ length: 100 }, () => open(few)));
    assert.equal(await tell(few, run()), '');
    const asked = ['--unix-socket', few.socket, '-sS', 'http://x/healthz'];
    const other = await runCommand('curl', asked, { uid: 12_345 });
    assert.equal(other.stdout, 'ok\n', other.stderr);
    for (const socket of mine) socket.destroy();
    await Promise.all(mine.map(heard));
    // As soon as it has seen that they are gone.
    const served = async () => (await tell(few, run())) === 'go - none -\n';
    await until(served, 'there is room again');
    assert.ok((await refused(few, 'too-many')) >= 1);
  });

  test('after 2,000 connections all descriptors are back', async () => {
    await tell(daemon, run());
    const before = descriptors(daemon);
    for (let round = 0; round < 20; round += 1) {
      await Promise.all(
        Array.from({ length: 100 }, (_, index) => tell(daemon, [run(), '{\n', 'x\r\n\r\n'][index % 3] ?? '')),
      );
    }
    await until(() => descriptors(daemon) <= before, 'the descriptors are closed');
  });

  test('out of descriptors, then not: connections are taken again', async () => {
    const limit = (soft: number) =>
      execFileSync('prlimit', ['--pid', String(daemon.pid), `--nofile=${soft}:`]);
    const [was] = execFileSync('prlimit', [
      '--pid',
      String(daemon.pid),
      '--nofile',
      '-n',
      '-o',
      'SOFT',
      '--noheadings',
    ])
      .toString()
      .trim()
      .split('\n');
    limit(descriptors(daemon) + 10);
    const sockets = await Promise.all(Array.from({ length: 100 }, () => open(daemon)));
    const ran = await daemon.run('echo unharmed');
    assert.equal(ran.stdout, 'unharmed\n');
    for (const socket of sockets) socket.destroy();
    limit(Number(was));
    await until(async () => (await tell(daemon, run())) === 'go - none -\n', 'served again');
  });

  test('a wrapper that half-closes or dies leaves the daemon as it was', async () => {
    const socket = await open(daemon);
    socket.end(run());
    await heard(socket);
    const dead = await open(daemon);
    dead.write('{"op":"run"');
    dead.destroy();
    await once(dead, 'close');
    assert.equal(await tell(daemon, run()), 'go - none -\n');
  });

  test('an intent that is no intent is never executed', async () => {
    const marker = `${daemon.dir}/executed`;
    const ran = await daemon.run('echo ran', {
      env: { AGENTRM_INTENT: `memory.high=a[$(touch ${marker})0]g` },
    });
    assert.equal(ran.stdout, 'ran\n');
    assert.equal(existsSync(marker), false);
  });
});
