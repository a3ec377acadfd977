// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { failure, native } from './addon.ts';

/** Prints the first datagram that reaches the given unix address. */
const receiver = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace('@', chr(0), 1))
print('bound', flush=True)
print(s.recv(4096).decode(), flush=True)
`;

describe('sd_notify', () => {
  let path: string;

  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'agentrm-notify-'));
  });
  afterEach(() => {
    delete process.env.NOTIFY_SOCKET;
    rmSync(path, { recursive: true });
  });

  for (const kind of ['path', 'abstract name']) {
    it(`reaches a socket by ${kind}`, async () => {
      const address = kind === 'path' ? join(path, 'notify') : `@agentrm-notify-${process.pid}`;
      const child = spawn('python3', ['-c', receiver, address], { stdio: ['ignore', 'pipe', 'inherit'] });
      let output = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk;
      });
      while (!output.includes('\n')) await once(child.stdout, 'data');
      process.env.NOTIFY_SOCKET = address;
      assert.equal(native.notify('READY=1\nSTATUS=up'), true);
      await once(child, 'close');
      assert.equal(output, 'bound\nREADY=1\nSTATUS=up\n');
    });
  }

  it('says so when nobody asked, and throws when nobody listens', () => {
    assert.equal(native.notify('READY=1'), false);
    process.env.NOTIFY_SOCKET = join(path, 'absent');
    assert.throws(() => native.notify('READY=1'), failure('ENOENT', 'sendto', join(path, 'absent')));
    process.env.NOTIFY_SOCKET = `/${'x'.repeat(200)}`;
    assert.throws(() => native.notify('READY=1'), { code: 'ENAMETOOLONG' });
  });
});

describe('the heartbeat file', () => {
  let path: string;
  const read = (): bigint => readFileSync(join(path, 'heartbeat')).readBigUInt64LE();

  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'agentrm-heartbeat-'));
  });
  afterEach(() => rmSync(path, { recursive: true }));

  it('holds the time of the last beat, in the clock that monotonicNs reads', () => {
    const heartbeat = native.openHeartbeat(join(path, 'heartbeat'));
    assert.equal(read(), 0n);
    const before = native.monotonicNs();
    heartbeat.beat();
    const first = read();
    assert.ok(before <= first && first <= native.monotonicNs());
    heartbeat.close();
    heartbeat.close();
    heartbeat.beat();
    assert.equal(read(), first);
  });

  it('can be read by anybody and does not follow a link', () => {
    const mask = process.umask(0o077);
    native.openHeartbeat(join(path, 'heartbeat')).close();
    process.umask(mask);
    assert.equal(statSync(join(path, 'heartbeat')).mode & 0o777, 0o644);
    writeFileSync(join(path, 'precious'), 'keep');
    symlinkSync(join(path, 'precious'), join(path, 'link'));
    assert.throws(
      () => native.openHeartbeat(join(path, 'link')),
      failure('ELOOP', 'open', join(path, 'link')),
    );
    assert.equal(readFileSync(join(path, 'precious'), 'utf8'), 'keep');
  });

  it('counts in the clock of process.hrtime', () => {
    const before = process.hrtime.bigint();
    const now = native.monotonicNs();
    assert.ok(before <= now && now <= process.hrtime.bigint());
  });
});
