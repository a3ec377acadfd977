// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmdirSync, statSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { addonPath, failure, native } from './addon.ts';

const isRoot = process.getuid?.() === 0;
/** As whom the other end runs: somebody else where that is possible. */
const uid = isRoot ? 65_534 : (process.getuid?.() ?? 0);

/** Connects over IPv4, IPv6 or IPv4 on an IPv6 socket, says so, and closes its socket but lives on when it is told. */
const client = `
import os, socket, sys
family, host, port, cgroup, uid = sys.argv[1:]
if cgroup:
    open(cgroup + '/cgroup.procs', 'w').write('0')
if uid:
    os.setuid(int(uid))
s = socket.socket(socket.AF_INET if family == '4' else socket.AF_INET6)
s.connect((host, int(port)))
sys.stdin.readline()
s.close()
print('closed', flush=True)
sys.stdin.readline()
`;

describe('the owner of a TCP connection', () => {
  let server: Server;
  let peer: ChildProcess;
  let socket: Socket;

  const owner = ({ remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 }: Socket = socket) =>
    native.tcpOwner(remoteAddress, remotePort, localAddress, localPort);

  /** @param cgroup that the peer is in */
  async function connected(listen: string, family: '4' | '6', host: string, cgroup?: string): Promise<void> {
    // Not read, so that it is not closed from this side when the peer closes.
    server = createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, listen);
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const connection = once(server, 'connection');
    const args = [family, host, String(port), cgroup ?? '', isRoot ? String(uid) : ''];
    peer = spawn('python3', ['-c', client, ...args], { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' });
    [socket] = (await connection) as [Socket];
  }

  afterEach(() => {
    peer?.kill('SIGKILL');
    socket?.destroy();
    server?.close();
  });

  for (const [listen, family, host] of [
    ['127.0.0.1', '4', '127.0.0.1'],
    ['::1', '6', '::1'],
    ['::', '4', '127.0.0.1'],
    ['127.0.0.1', '6', '::ffff:127.0.0.1'],
  ] as const) {
    it(`is found: ${listen} reached as ${host} by a socket of IPv${family}`, async () => {
      await connected(listen, family, host);
      assert.equal(owner()?.uid, uid);
      const { remoteAddress = '', remotePort = 0, localAddress = '', localPort = 0 } = socket;
      assert.equal(
        native.tcpOwner(localAddress, localPort, remoteAddress, remotePort)?.uid,
        process.getuid?.(),
      );
    });
  }

  it('tells the cgroup in which it was made', async (t) => {
    const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8'))?.[1];
    const folder = join(mount ?? '/nonexistent', `agentrm-tcp-owner-${process.pid}`);
    try {
      mkdirSync(folder);
    } catch (error) {
      return t.skip(`no cgroup can be made: ${error}`);
    }
    try {
      await connected('127.0.0.1', '4', '127.0.0.1', folder);
      assert.equal(owner()?.cgroupId, statSync(folder).ino);
    } finally {
      const exited = once(peer, 'exit');
      peer.kill('SIGKILL');
      await exited;
      rmdirSync(folder);
    }
  });

  it('is nobody once it is closed, and never who listens on the port', async () => {
    await connected('127.0.0.1', '4', '127.0.0.1');
    const closed = once(peer.stdout ?? assert.fail(), 'data');
    peer.stdin?.write('\n');
    await closed;
    assert.equal(owner(), null);
    const { localPort = 0, remotePort = 0 } = socket;
    const other = remotePort === 9 ? 10 : 9;
    assert.equal(native.tcpOwner('127.0.0.1', localPort, '127.0.0.1', other), null);
    assert.equal(native.tcpOwner('127.0.0.1', other, '127.0.0.1', localPort), null);
  });
});

describe('ends that are none', () => {
  const odd = { code: 'ERR_INVALID_ARG_VALUE' };
  it('are refused', () => {
    assert.throws(() => native.tcpOwner('localhost', 1, '127.0.0.1', 2), odd);
    assert.throws(() => native.tcpOwner('fe80::1%lo', 1, 'fe80::1', 2), odd);
    assert.throws(() => native.tcpOwner('127.0.0.1', 0, '127.0.0.1', 2), odd);
    assert.throws(() => native.tcpOwner('127.0.0.1', 1, '127.0.0.1', 65_536), odd);
    assert.throws(() => native.tcpOwner('127.0.0.1', 1, '::1', 2), odd);
    assert.throws(() => native.tcpOwner(1 as unknown as string, 1, '::1', 2), {
      code: 'ERR_INVALID_ARG_TYPE',
    });
  });

  it('leave no descriptor behind; without one to ask with, errno and call are told', async () => {
    const program = `
      const { tcpOwner } = require(process.argv[1]);
      const { openSync } = require('node:fs');
      for (let times = 0; times < 1000; times += 1) tcpOwner('127.0.0.1', 1, '127.0.0.1', 2);
      try { for (;;) openSync('/dev/null', 'r'); } catch {}
      try { tcpOwner('127.0.0.1', 1, '127.0.0.1', 2); } catch ({ code, syscall }) { console.log(code, syscall); }`;
    const limited = spawn(
      'sh',
      ['-c', 'ulimit -n 64; exec "$0" -e "$1" "$2"', process.execPath, program, addonPath],
      {
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    let out = '';
    limited.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
    });
    await once(limited, 'close');
    const [code = '', syscall = ''] = out.trim().split(' ');
    assert.deepEqual({ code, syscall }, failure('EMFILE', 'socket'));
  });
});
