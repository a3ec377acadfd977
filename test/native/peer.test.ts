// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { failure, native } from './addon.ts';

/** Connects, prints a line, then prints what it receives: text and the content of each descriptor. */
const client = `
import array, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
print('connected', flush=True)
data, ancillary, flags, address = s.recvmsg(4096, socket.CMSG_SPACE(8 * 4))
fds = array.array('i')
for level, kind, body in ancillary:
    fds.frombytes(body)
print(data.decode().strip(), *[open(fd).read() for fd in fds], flush=True)
`;

/** The descriptor of a socket, which Node keeps to itself. */
function fdOf(socket: Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd;
}

describe('the peer of a unix socket', () => {
  let path: string;
  let server: Server;
  let peer: ChildProcess;
  let socket: Socket;

  beforeEach(async () => {
    path = mkdtempSync(join(tmpdir(), 'agentrm-peer-'));
    // Paused, so that the socket keeps its descriptor when the peer goes.
    server = createServer({ pauseOnConnect: true });
    server.listen(join(path, 'sock'));
    await once(server, 'listening');
    const connection = once(server, 'connection');
    peer = spawn('python3', ['-c', client, join(path, 'sock')], { stdio: ['ignore', 'pipe', 'inherit'] });
    [socket] = (await connection) as [Socket];
  });
  afterEach(() => {
    peer.kill('SIGKILL');
    socket.destroy();
    server.close();
    rmSync(path, { recursive: true });
  });

  it('is named by the kernel, with a pidfd', () => {
    const cred = native.peerCred(fdOf(socket));
    assert.equal(cred.pid, peer.pid);
    assert.equal(cred.uid, process.getuid?.());
    assert.equal(cred.gid, process.getgid?.());
    assert.match(
      readFileSync(`/proc/self/fdinfo/${cred.pidfd}`, 'utf8'),
      new RegExp(`^Pid:\\t${peer.pid}$`, 'm'),
    );
    closeSync(cred.pidfd);
  });

  it('gets descriptors with a message', async () => {
    writeFileSync(join(path, 'file'), 'content');
    const dir = native.openDir(path);
    const fd = native.openAt(dir, 'file', false);
    const output = (peer.stdout as NodeJS.ReadableStream).setEncoding('utf8');
    let printed = '';
    output.on('data', (part) => {
      printed += part;
    });
    native.sendFds(fdOf(socket), 'go c1 clone -\n', [fd]);
    await once(output, 'end');
    assert.equal(printed, 'connected\ngo c1 clone - content\n');
    closeSync(fd);
    closeSync(dir);
  });

  it('is sent signals by pidfd, and its end is seen', async () => {
    const { pidfd } = native.peerCred(fdOf(socket));
    native.pidfdSendSignal(pidfd, 0);
    const ended = new Promise<void>((resolve) => {
      const watch = native.watch(pidfd, 'readable', () => {
        watch.close();
        resolve();
      });
    });
    native.pidfdSendSignal(pidfd, 9);
    await ended;
    const [, signal] = peer.signalCode === null ? await once(peer, 'exit') : [null, peer.signalCode];
    assert.equal(signal, 'SIGKILL');
    assert.throws(() => native.pidfdSendSignal(pidfd, 0), failure('ESRCH', 'pidfd_send_signal'));
    closeSync(pidfd);
  });

  it('has no pidfd once it is gone', async () => {
    const exited = once(peer, 'exit');
    peer.kill('SIGKILL');
    await exited;
    const cred = native.peerCred(fdOf(socket));
    assert.equal(cred.pid, peer.pid);
    assert.equal(cred.pidfd, -1);
  });

  it('makes sendFds fail instead of blocking or raising SIGPIPE', async () => {
    assert.throws(() => native.sendFds(fdOf(socket), 'x', [1e9]), failure('EBADF', 'sendmsg'));
    // It would end after the first message.
    peer.kill('SIGSTOP');
    assert.throws(
      () => {
        for (;;) native.sendFds(fdOf(socket), 'x'.repeat(1 << 16), []);
      },
      failure('EAGAIN', 'sendmsg'),
    );
    const exited = once(peer, 'exit');
    peer.kill('SIGKILL');
    await exited;
    assert.throws(() => native.sendFds(fdOf(socket), 'x', []), {
      code: /^(EPIPE|ECONNRESET)$/,
      syscall: 'sendmsg',
    });
  });
});

describe('peers that are none', () => {
  it('are refused', () => {
    const file = openSync('/dev/null', 'r');
    assert.throws(() => native.peerCred(file), failure('ENOTSOCK', 'getsockopt'));
    assert.throws(() => native.sendFds(file, 'x', []), failure('ENOTSOCK', 'sendmsg'));
    assert.throws(() => native.sendFds(file, '', []), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => native.sendFds(file, 'x', new Array(254).fill(0)), { code: 'ERR_INVALID_ARG_VALUE' });
    const loose = 1 as unknown as number[];
    assert.throws(() => native.sendFds(file, 'x', loose), { code: 'ERR_INVALID_ARG_TYPE' });
    closeSync(file);
  });

  it('cannot be opened after their end', async () => {
    const child = spawn('true');
    await once(child, 'exit');
    assert.throws(() => native.pidfdOpen(child.pid as number), {
      ...failure('ESRCH', 'pidfd_open'),
      value: String(child.pid),
    });
  });
});
