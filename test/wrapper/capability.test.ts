// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmdirSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Native } from '../../native/agentrm.d.ts';
import { until } from '../lib/daemon.ts';
import { answering, obliging, Peer, type Reply } from './peer.ts';
import { finish, helper, printed, type Result, run, scratch, start, unbuilt, unprivileged } from './shell.ts';

const addon = new URL('../../dist/agentrm.node', import.meta.url).pathname;
const NOBODY = 65534;

/** CAP_DAC_OVERRIDE in the permitted set, not effective, as `setcap cap_dac_override=p` writes it. */
const setCapability = `
import os, struct, sys
os.setxattr(sys.argv[1], 'security.capability', struct.pack('<5I', 0x02000000, 1 << 1, 0, 0, 0))
`;

/** Where cgroup v2 is mounted, be it beside v1. */
function cgroupMount(): string | undefined {
  const mount = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type]) => type === 'cgroup2');
  return mount?.[1];
}

describe('agentrm-run with a file capability', { skip: unbuilt || unprivileged }, () => {
  const folder = scratch();
  const program = join(folder.path, 'agentrm-run');
  const socket = join(folder.path, 'sock');
  /** Where anybody can listen. */
  const open = join(folder.path, 'open');

  before(async () => {
    chmodSync(folder.path, 0o755);
    mkdirSync(open);
    chmodSync(open, 0o777);
    copyFileSync(helper, program);
    chmodSync(program, 0o755);
    const { stderr } = await run('python3', ['-c', setCapability, program]);
    assert.equal(stderr, '');
  });
  after(() => folder[Symbol.dispose]());

  const asNobody = ['/usr/bin/setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
  const args = (command: string): string[] => [...asNobody.slice(1), program, '/bin/bash', '-c', command];
  const env = { AGENTRM_SOCKET: socket };
  const call = (command: string, more: Record<string, string> = {}): Promise<Result> =>
    run('/usr/bin/setpriv', args(command), { env: { ...env, ...more } });

  const listen = async (uid: number, reply?: Reply): Promise<Peer> => {
    // The kernel remembers for SO_PEERCRED who called listen(2).
    process.seteuid?.(uid);
    const peer = await Peer.listen(uid === 0 ? socket : join(open, 'sock'), reply);
    process.seteuid?.(0);
    chmodSync(peer.path, 0o777);
    return peer;
  };

  /** The capability sets of the command and the owner of its /proc files, which is root if it cannot be traced. */
  const inspect = 'grep -E "^Cap(Inh|Prm|Eff|Amb)|NoNewPrivs" /proc/$$/status; stat -c %u /proc/$$/environ';
  const plainly = (): Promise<Result> =>
    run('/usr/bin/setpriv', [...asNobody.slice(1), '/bin/bash', '-c', inspect]);

  /** Every way in which the command can be started. */
  const replies: Record<string, Reply | undefined> = {
    'forked where it is': obliging,
    executed: answering('go - none -\n'),
    moved: (message, peer) => {
      if (message.op === 'run') peer.write('go c1 move t0ken -\n');
      if (message.op === 'place') peer.end('placed\n');
      if (message.op === 'end') peer.end('bye\n');
    },
    'without a daemon': undefined,
  };

  it('leaves nothing of it to the command, whichever way it is started', async () => {
    const expected = await plainly();
    assert.match(expected.stdout, /CapEff:\t0{16}\n.*\n65534\n$/s);
    for (const [name, reply] of Object.entries(replies)) {
      await using _ = reply === undefined ? undefined : await listen(0, reply);
      assert.deepEqual({ ...(await call(inspect)), stderr: '' }, expected, name);
    }
  });

  /** What the command finds as its stack limit if `caller` runs it as RUN; the caller may set any. */
  const stackLimit = async (caller: string, wrapped: string): Promise<string> => {
    const script = caller.replace('RUN', `${wrapped} /bin/bash -c "ulimit -s"`);
    const limited = `ulimit -s unlimited; exec ${asNobody.join(' ')} /bin/bash -c '${script}; exit'`;
    return (await run('/bin/bash', ['-c', limited], { env })).stdout;
  };

  it('leaves the command the stack that its caller has, whichever way it is started', async () => {
    for (const [name, reply] of Object.entries(replies)) {
      await using _ = reply === undefined ? undefined : await listen(0, reply);
      assert.equal(await stackLimit('RUN', program), 'unlimited\n', name);
    }
  });

  for (const [name, caller] of [
    ['above the 8 MiB that the kernel leaves of it', 'ulimit -Ss 16384; RUN'],
    ['8 MiB', 'ulimit -Ss 8192; RUN'],
    ['below that, and the caller has more', '(ulimit -Ss 4096; exec RUN)'],
    ['at a hard limit, and the caller has more', '(ulimit -s 12288; exec RUN)'],
  ] as const) {
    it(`leaves the command the stack that it was given: ${name}`, async () => {
      assert.equal(await stackLimit(caller, program), await stackLimit(caller, ''));
    });
  }

  it('keeps the environment that the loader strips from privileged programs', async () => {
    await using _ = await listen(0);
    const { stdout } = await call('echo "$TMPDIR|$LD_LIBRARY_PATH"', { TMPDIR: '/a', LD_LIBRARY_PATH: '/b' });
    assert.equal(stdout, '/a|/b\n');
  });

  it('offers it to a daemon of root only', async () => {
    for (const [uid, clone] of [
      [0, true],
      [NOBODY, false],
    ] as const) {
      await using peer = await listen(uid);
      const { status } = await call('exit 3', { AGENTRM_SOCKET: peer.path });
      assert.equal(status, 3);
      assert.equal((await peer.message('run')).clone, clone, `daemon of uid ${uid}`);
    }
  });

  it('tells a daemon of somebody else nothing', async () => {
    await using peer = await listen(NOBODY);
    const result = await run(helper, ['/bin/bash', '-c', 'exit 3'], { env: { AGENTRM_SOCKET: peer.path } });
    assert.equal(
      result.stderr,
      `agentrm: not allowed to use the daemon at ${peer.path}, running unmanaged\n`,
    );
    assert.deepEqual([result.status, peer.messages], [3, []]);
  });

  it('runs the command where the caller may not reach the daemon', async () => {
    const closed = join(folder.path, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    await using peer = await Peer.listen(join(closed, 'sock'));
    const result = await call('exit 3', { AGENTRM_SOCKET: peer.path });
    assert.equal(
      result.stderr,
      `agentrm: not allowed to use the daemon at ${peer.path}, running unmanaged\n`,
    );
    assert.deepEqual([result.status, peer.messages], [3, []]);
  });

  describe('and a cgroup', {
    skip: cgroupMount() && existsSync(addon) ? false : 'needs cgroup v2 and the addon',
  }, () => {
    const native = existsSync(addon) ? (createRequire(import.meta.url)(addon) as Native) : undefined;
    const cgroup = join(cgroupMount() ?? '', `agentrm-test-${process.pid}`);
    let fd = -1;

    before(() => {
      mkdirSync(cgroup);
      fd = openSync(cgroup, 'r');
    });
    after(() => {
      closeSync(fd);
      rmdirSync(cgroup);
    });

    const cloning: Reply = (message, peer: Socket) => {
      const handle = (peer as unknown as { _handle: { fd: number } })._handle;
      if (message.op === 'run') native?.sendFds(handle.fd, 'go c1 clone -\n', [fd]);
      else obliging(message, peer);
    };
    /** The command's cgroup, as it sees it itself. */
    const where = `[[ $(</proc/self/cgroup) == *agentrm-test-${process.pid}* ]] && echo inside`;

    it('forks the command into the cgroup of root, and has the capability no longer', async () => {
      await using peer = await listen(0, cloning);
      const child = start('/usr/bin/setpriv', args(`${where}; echo ready; read -r; exit 3`), { env });
      const result = finish(child);
      await printed(child, 'ready');
      // The command may print before its parent, woken by the exec, has run again: it is done when it sleeps.
      const status = (): string => readFileSync(`/proc/${child.pid}/status`, 'utf8');
      await until(() => /^State:\tS/m.test(status()), 'agentrm-run waits for the command');
      const waiting = status();
      child.stdin.end('\n');
      assert.match(waiting, /^Name:\tagentrm-run$/m);
      assert.match(waiting, /^CapPrm:\t0{16}\nCapEff:\t0{16}$/m);
      assert.deepEqual(await result, { status: 3, signal: null, stdout: 'inside\nready\n', stderr: '' });
      assert.deepEqual(
        peer.messages.map(({ op }) => op),
        ['run', 'end'],
      );
    });

    it('does not use it for a daemon of the caller', async () => {
      await using peer = await listen(NOBODY, cloning);
      const { stdout } = await call(`${where}; exit 3`, { AGENTRM_SOCKET: peer.path });
      assert.equal(stdout, '');
      await peer.message('late');
    });

    it('is not needed by root', async () => {
      await using _ = await listen(0, cloning);
      const { stdout, status } = await run(helper, ['/bin/bash', '-c', `${where}; exit 3`], { env });
      assert.deepEqual([stdout, status], ['inside\n', 3]);
    });
  });
});
