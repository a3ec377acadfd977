// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import fc from 'fast-check';
import type { Native } from '../../native/agentrm.d.ts';
import { until } from '../lib/daemon.ts';
import { answering, obliging, Peer, type Reply, writeBeat } from './peer.ts';
import { finish, helper, printed, type Result, run, scratch, start, unbuilt, wrapper } from './shell.ts';

const addon = new URL('../../dist/agentrm.node', import.meta.url).pathname;
const native = existsSync(addon) ? (createRequire(import.meta.url)(addon) as Native) : undefined;

/** The descriptor of a socket, for the addon. */
const fdOf = (socket: Socket): number => (socket as unknown as { _handle: { fd: number } })._handle.fd;

const ended = (status: number, stderr = ''): Result => ({ status, signal: null, stdout: 'ran\n', stderr });

describe('agentrm-run and its daemon', { skip: unbuilt }, () => {
  const folder = scratch();
  let path = '';
  let count = 0;

  after(() => folder[Symbol.dispose]());
  beforeEach(() => {
    count += 1;
    const runtime = join(folder.path, `${count}`);
    mkdirSync(runtime);
    path = join(runtime, 'sock');
  });

  const call = (env: Record<string, string> = {}, command = 'echo ran; exit 3'): Promise<Result> =>
    run(wrapper, [command], { env: { AGENTRM_SOCKET: path, ...env } });

  describe('what it sends', () => {
    it('names the command, the directory, the intent, the session and the agent', async () => {
      await using peer = await Peer.listen(path);
      await run(wrapper, ['-lc', 'true "é\t"'], {
        cwd: folder.path,
        env: {
          AGENTRM_SOCKET: path,
          AGENTRM_INTENT: 'memory.high=1G',
          CLAUDE_CODE_SESSION_ID: 'abc',
          CLAUDECODE: '1',
          CLAUDE_CODE_CHILD_SESSION: '1',
        },
      });
      const { clone, ...request } = await peer.message('run');
      assert.deepEqual(request, {
        op: 'run',
        v: 1,
        argv: ['bash', '-lc', 'true "é\t"'],
        cwd: folder.path,
        intent: 'memory.high=1G',
        session: 'abc',
        agent: 'claude-code',
      });
      assert.equal(typeof clone, 'boolean');
    });

    it('prefers its own variables, and takes an empty one for none', async () => {
      await using peer = await Peer.listen(path);
      const claude = { CLAUDE_CODE_SESSION_ID: 'abc', AGENTRM_INTENT: '' };
      await call({ ...claude, AGENTRM_SESSION: 'own', AGENTRM_AGENT: 'mine' });
      const request = await peer.message('run');
      assert.deepEqual([request.session, request.agent, 'intent' in request], ['own', 'mine', false]);
    });

    it('marks an intent that is too long, so that half of it is not taken for all', async () => {
      await using peer = await Peer.listen(path);
      await call({ AGENTRM_INTENT: `memory.high=1G ${'x'.repeat(10_000)}` });
      const { intent } = await peer.message('run');
      assert.match(String(intent), /^memory.high=1G x{4081} \(cut\)$/);
    });

    for (const [what, set, up] of [
      ['at its top', 'mkdir .git', 0],
      ['below its top', 'mkdir .git a a/b && cd a/b', 2],
      ['in a linked work tree, whose .git is a file', 'mkdir .git a && touch a/.git && cd a', 0],
      [
        'in a directory that is a link from elsewhere',
        'mkdir .git a other && ln -s ../a other/b && cd other/b',
        1,
      ],
    ] as const) {
      it(`says how far above its repository begins: ${what}`, async () => {
        await using peer = await Peer.listen(path);
        const script = `rm -rf ${path}.w && mkdir ${path}.w && cd ${path}.w && ${set} && exec ${helper} /bin/bash -c true`;
        await run('/bin/bash', ['-c', script], { env: { AGENTRM_SOCKET: path } });
        assert.equal((await peer.message('run')).top, up);
        rmSync(`${path}.w`, { recursive: true });
      });
    }

    it('says nothing of a repository where there is none', async () => {
      await using peer = await Peer.listen(path);
      await run('/bin/bash', ['-c', `cd / && exec ${helper} /bin/bash -c true`], {
        env: { AGENTRM_SOCKET: path },
      });
      const request = await peer.message('run');
      assert.deepEqual([request.cwd, 'top' in request], ['/', false]);
    });

    it('leaves out a directory that is gone', async () => {
      await using peer = await Peer.listen(path);
      const script = `mkdir ${path}.d && cd ${path}.d && rmdir ${path}.d && exec ${helper} /bin/bash -c true`;
      await run('/bin/bash', ['-c', script], { env: { AGENTRM_SOCKET: path } });
      assert.equal('cwd' in (await peer.message('run')), false);
    });

    it('replaces what is not UTF-8', async () => {
      await using peer = await Peer.listen(path);
      const script = `exec ${helper} /bin/bash -c ': $1' x $'a\\xff\\xc0\\x80\\xed\\xa0\\x80\\xf5b\\xe2\\x82'`;
      const result = await run('/bin/bash', ['-c', script], { env: { AGENTRM_SOCKET: path } });
      assert.equal(result.status, 0);
      const { argv } = await peer.message('run');
      assert.equal((argv as string[])[4], `a${'\ufffd'.repeat(7)}b${'\ufffd'.repeat(2)}`);
    });

    it('keeps any arguments within one line of 64 KiB of JSON', async () => {
      await using peer = await Peer.listen(path);
      const words = fc.array(fc.string({ unit: 'binary', maxLength: 40 }).map((s) => s.replaceAll('\0', '')));
      const big = fc
        .tuple(fc.constantFrom('\x01', '"', '\\', 'x', 'é', '\u{1f600}'), fc.integer({ min: 0, max: 9000 }))
        .map(([unit, times]) => [unit.repeat(times), unit.repeat(times)]);
      await fc.assert(
        fc.asyncProperty(fc.oneof(words, big), fc.string(), async (rest, intent) => {
          peer.messages.length = peer.lines.length = 0;
          const args = ['/bin/bash', '-c', 'exit 3', ...rest];
          const env = { AGENTRM_SOCKET: path, AGENTRM_INTENT: intent.replaceAll('\0', '') };
          const result = await run(helper, args, { env });
          assert.deepEqual([result.status, result.stderr], [3, '']);
          const { argv } = await peer.message('run');
          assert.ok(Buffer.byteLength(peer.lines[0] ?? '') < 65_536);
          const bytes = Buffer.byteLength(args.join(''));
          if (bytes < 5000)
            assert.deepEqual(
              argv,
              args.map((word) => word.toWellFormed()),
            );
          else assert.ok(args.join(' ').startsWith((argv as string[]).slice(0, -1).join(' ')));
        }),
        { numRuns: 60 },
      );
    });

    it('sends no more words than the daemon takes', async () => {
      await using peer = await Peer.listen(path);
      await run(helper, ['/bin/bash', '-c', 'exit 0', ...Array.from({ length: 20_000 }, () => '')], {
        env: { AGENTRM_SOCKET: path },
      });
      const { argv } = await peer.message('run');
      assert.equal((argv as string[]).length, 1024);
    });

    it('tells how the command ended and what it used', async () => {
      for (const [command, expected] of [
        ['exit 42', { op: 'end', code: 42 }],
        ['kill -USR1 $$', { op: 'end', signal: 10 }],
      ] as const) {
        await using peer = await Peer.listen(`${path}${command}`);
        await call({ AGENTRM_SOCKET: peer.path }, command);
        const { utimeMs, stimeMs, ...end } = await peer.message('end');
        assert.deepEqual(end, expected);
        assert.ok(Number.isInteger(utimeMs) && Number.isInteger(stimeMs));
      }
    });
  });

  describe('what it does on an answer', () => {
    it('runs the command by itself on `none`, and ends the conversation', async () => {
      await using peer = await Peer.listen(path, answering('go - none -\n'));
      assert.deepEqual(await call(), ended(3));
      assert.deepEqual(
        peer.messages.map(({ op }) => op),
        ['run'],
      );
    });

    it('exits with the given code on `refuse`, after the reason', async () => {
      await using _ = await Peer.listen(path, answering('note agentrm: bad intent\nrefuse 125\n'));
      assert.deepEqual(await call(), {
        status: 125,
        signal: null,
        stdout: '',
        stderr: 'agentrm: bad intent\n',
      });
    });

    it('turns huge pages off, unless told to leave them', async () => {
      const command =
        'while read -r key value; do [[ $key == THP_enabled: ]] && echo "$value"; done </proc/$$/status';
      for (const [flags, value] of [
        ['-', '0'],
        ['thp', '1'],
        ['other,thp', '1'],
        ['thpx', '0'],
      ]) {
        await using peer = await Peer.listen(`${path}${flags}`, answering(`go c1 clone ${flags}\n`));
        const { stdout } = await call({ AGENTRM_SOCKET: peer.path }, command);
        assert.equal(stdout, `${value}\n`, `${flags}`);
      }
    });

    it('starts the command where it is without a cgroup to fork into, and has it moved', async () => {
      await using peer = await Peer.listen(path);
      assert.deepEqual(await call(), ended(3));
      await peer.message('end');
      assert.deepEqual(
        peer.messages.map(({ op }) => op),
        ['run', 'late', 'end'],
      );
    });

    it('does not fork into a directory that is no cgroup, and keeps none of many descriptors', async (t) => {
      if (native === undefined) return t.skip('dist/agentrm.node is not built');
      const fds = [folder.path, '/proc', '/'].map((name) => openSync(name, 'r'));
      await using peer = await Peer.listen(path, (message, socket) => {
        if (message.op === 'run') native.sendFds(fdOf(socket), 'go c1 clone -\n', Array(20).fill(fds).flat());
        else obliging(message, socket);
      });
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
      const command = 'for fd in /proc/$$/fd/*; do echo "${fd##*/}"; done; exit 3';
      assert.deepEqual(await call({}, command), await run('/bin/bash', ['-c', command]));
      for (const fd of fds) closeSync(fd);
      assert.equal((await peer.message('late')).op, 'late');
    });

    it('has the command placed by a connection of its own on `move`', async () => {
      const placed: Reply = (message, socket) => {
        if (message.op === 'run') socket.write('go c1 move t0ken -\n');
        if (message.op === 'place') socket.end('placed\n');
        if (message.op === 'end') socket.end('bye\n');
      };
      await using peer = await Peer.listen(path, placed);
      assert.deepEqual(await call(), ended(3));
      const { op, v, token } = await peer.message('place');
      assert.deepEqual({ op, v, token }, { op: 'place', v: 1, token: 't0ken' });
      assert.equal((await peer.message('end')).code, 3);
    });

    for (const [name, answer, why] of [
      ['says why it could not', 'failed no room\n', 'no room'],
      ['hangs up', '', 'no answer'],
      ['answers junk', 'what\n', 'no answer'],
    ] as const) {
      it(`runs the command unplaced if the daemon ${name}`, async () => {
        await using _ = await Peer.listen(path, (message, socket) => {
          if (message.op === 'run') socket.write('go c1 move t0ken -\n');
          if (message.op === 'place') socket.end(answer);
          if (message.op === 'end') socket.end('bye\n');
        });
        assert.deepEqual(await call(), ended(3, `agentrm: not placed: ${why}, running unmanaged\n`));
      });
    }
  });

  describe('what it does without one', () => {
    const unmanaged = (why: string): string => `agentrm: ${why}, running unmanaged\n`;

    it('runs the command at once if nobody listens', async () => {
      assert.deepEqual(await call(), ended(3, unmanaged(`no daemon at ${path}`)));
      await (await Peer.listen(path))[Symbol.asyncDispose]();
      writeFileSync(path, 'a file, not a socket');
      assert.deepEqual(await call(), ended(3, unmanaged(`no daemon at ${path}`)));
    });

    it('runs the command if the path is too long for a socket', async () => {
      const AGENTRM_SOCKET = `${folder.path}/${'x'.repeat(200)}`;
      assert.deepEqual(await call({ AGENTRM_SOCKET }), ended(3, unmanaged(`no daemon at ${AGENTRM_SOCKET}`)));
    });

    it('sleeps between its tries where too many wait to be heard', async () => {
      const full = `
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(0)
waiting = []
try:
    while True:
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
        waiting[-1].connect(sys.argv[1])
except BlockingIOError:
    print('full', flush=True)
sys.stdin.read()
`;
      const listener = start('python3', ['-c', full, path]);
      await printed(listener, 'full');
      const timed = `TIMEFORMAT='%R %U %S'; time ${helper} /bin/false; exit $?`;
      const { status, stderr } = await run('/bin/bash', ['-c', timed], { env: { AGENTRM_SOCKET: path } });
      listener.kill();
      const [line, times = ''] = stderr.split('\n');
      assert.deepEqual([status, line], [1, unmanaged(`no daemon at ${path}`).trimEnd()]);
      const [elapsedS = 0, userS = 0, systemS = 0] = times.split(' ').map(Number);
      assert.ok(userS + systemS < elapsedS / 4, times);
    });

    it('runs the command and stays when the daemon says nothing', async () => {
      await using peer = (await Peer.listen(path, () => {})).stopBeating();
      assert.deepEqual(
        await call(),
        ended(3, `agentrm: no answer yet from the daemon at ${path}, running unmanaged until it comes\n`),
      );
      assert.deepEqual(
        peer.messages.map(({ op }) => op),
        ['run'],
      );
    });

    it('waits for a daemon that beats, and for one that has heard it', async () => {
      const late: Reply = (message, socket) => {
        if (message.op === 'run') setTimeout(300).then(() => obliging(message, socket));
        else obliging(message, socket);
      };
      await using busy = await Peer.listen(path, late);
      assert.deepEqual(await call(), ended(3));
      assert.equal(busy.messages.length, 3);
      await using slow = await Peer.listen(`${path}.slow`, (message, socket) => {
        if (message.op === 'run') socket.write('ack 60000\n');
        late(message, socket);
      });
      slow.stopBeating();
      assert.deepEqual(await call({ AGENTRM_SOCKET: slow.path }), ended(3));
      assert.equal(slow.messages.length, 3);
    });

    it('does not take an old heartbeat, or one that is yet to come, for a beating one', async () => {
      for (const agoMs of [3000, -3000]) {
        await using peer = (await Peer.listen(path, () => {})).stopBeating();
        writeBeat(join(dirname(path), 'heartbeat'), agoMs);
        const { stderr } = await call();
        assert.match(stderr, /^agentrm: no answer yet/);
        assert.equal(peer.messages.length, 1);
      }
    });

    for (const [whose, ack, bound] of [
      ["the daemon's", 'ack 100', {}],
      ['its own', 'ack 60000', { AGENTRM_ADMISSION_MS: '100' }],
    ] as const) {
      it(`gives up on admission after ${whose} bound, and is placed when the answer comes`, async () => {
        await using peer = await Peer.listen(path, (message, socket) => {
          if (message.op === 'run') socket.write(`${ack}\n`);
          else obliging(message, socket);
        });
        const child = start(wrapper, ['echo started; read -r; exit 3'], {
          env: { AGENTRM_SOCKET: path, ...bound },
        });
        const result = finish(child);
        await printed(child, 'started');
        for (const socket of peer.sockets) socket.write('go c7 clone -\n');
        await peer.message('late');
        child.stdin.end('\n');
        assert.equal((await result).status, 3);
        assert.equal((await peer.message('end')).code, 3);
      });
    }

    for (const [name, bytes] of [
      ['junk', '\x00\xff\x1b junk\n'],
      ['an HTTP answer', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
      ['a line without an end', 'x'.repeat(5000)],
      ['a megabyte', 'note '.repeat(200_000)],
      ['an `ack` that says nothing', 'ack\n'],
      ['an `ack` without a number', 'ack soon\n'],
      ['a `go` cut short', 'go c1\n'],
      ['a `go` of another kind', 'go c1 fly -\n'],
      ['a call whose name is too long', `go ${'c'.repeat(200)} clone -\n`],
      ['a refusal with no code', 'refuse\n'],
      ['a refusal with 0', 'refuse 0\n'],
      ['a refusal with more than a byte', 'refuse 256\n'],
      ['a NUL in a line', 'go c1 \0clone -\n'],
      ['notes without end', 'note n\n'.repeat(100)],
    ] as const) {
      it(`runs the command on ${name}`, async () => {
        await using _ = await Peer.listen(path, answering(Buffer.from(bytes, 'latin1')));
        const result = await call();
        assert.deepEqual([result.status, result.stdout], [3, 'ran\n']);
        assert.ok(
          result.stderr.endsWith(unmanaged(`no valid answer from the daemon at ${path}`)),
          result.stderr,
        );
      });
    }

    it('runs the command whatever comes', async () => {
      const pieces = [
        'go ',
        'c1 ',
        'clone ',
        'move ',
        't ',
        'none ',
        '-',
        'note n',
        'ack ',
        '1 ',
        'bye',
        'gone',
        'placed',
        '\n',
        '\n',
      ];
      const bytes = fc
        .array(fc.oneof(fc.constantFrom(...pieces), fc.string({ unit: 'binary', maxLength: 3 })))
        .map((parts) => parts.join(''));
      await fc.assert(
        fc.asyncProperty(bytes, bytes, async (answer, placed) => {
          await using peer = await Peer.listen(path, (message, socket) => {
            if (message.op === 'run') socket.end(answer);
            else socket.end(message.op === 'place' ? placed : 'gone\n');
          });
          const result = await run(helper, ['/bin/bash', '-c', 'echo ran; exit 3'], {
            env: { AGENTRM_SOCKET: peer.path },
          });
          assert.deepEqual([result.status, result.signal, result.stdout], [3, null, 'ran\n']);
        }),
        { numRuns: 150 },
      );
    });

    it('puts an answer together from single bytes', async () => {
      await using _ = await Peer.listen(path, (message, socket) => {
        if (message.op !== 'run') return obliging(message, socket);
        socket.setNoDelay(true);
        const bytes = [...'ack 6000\nnote agentrm: hi\ngo c1 clone -\n'];
        const next = (): void => {
          const byte = bytes.shift();
          if (byte !== undefined) socket.write(byte, () => setImmediate(next));
        };
        next();
      });
      assert.deepEqual(await call(), ended(3, 'agentrm: hi\n'));
    });

    it('runs the command if the daemon hangs up before its answer', async () => {
      await using _ = await Peer.listen(path, (_message, socket) => socket.destroy());
      assert.deepEqual(await call(), ended(3, unmanaged(`no valid answer from the daemon at ${path}`)));
    });

    it('ends as the command does if the daemon dies at the end, and does not wait for one without a heartbeat', async () => {
      await using peer = await Peer.listen(path, (message, socket) => {
        if (message.op !== 'end') return obliging(message, socket);
        peer.stopBeating();
        socket.destroy();
      });
      assert.deepEqual(await call(), ended(3));
      assert.deepEqual(
        peer.messages.map(({ op }) => op),
        ['run', 'late', 'end'],
      );
    });

    /** As the daemon that comes after another. */
    const succeeding: Reply = (message, socket) => {
      if (message.op === 'adopt') socket.write('go c0123456789ab kept -\n');
      if (message.op === 'end') socket.end('note agentrm: adopted\nbye\n');
    };

    const toldSuccessor = async (result: Promise<Result>): Promise<void> => {
      await using second = await Peer.listen(path, succeeding);
      const { status, stderr } = await result;
      assert.deepEqual([status, stderr], [3, 'agentrm: adopted\n']);
      assert.deepEqual(
        second.messages.map(({ op, call, code }) => [op, call ?? code]),
        [
          ['adopt', 'c0123456789ab'],
          ['end', 3],
        ],
      );
    };

    it('tells the next daemon of an end while there was none', async () => {
      const first = await Peer.listen(path);
      const child = start(wrapper, ['echo started; read -r; exit 3'], { env: { AGENTRM_SOCKET: path } });
      const result = finish(child);
      await printed(child, 'started');
      await first.message('late');
      await first.die();
      child.stdin.end('\n');
      const children = `/proc/${child.pid}/task/${child.pid}/children`;
      await until(() => readFileSync(children, 'utf8') === '', 'the command has ended');
      await toldSuccessor(result);
    });

    it('tells the next daemon of an end that the last one died over', async () => {
      const first = await Peer.listen(path, (message, socket) => {
        if (message.op === 'run') obliging(message, socket);
      });
      const result = call();
      await first.message('end');
      await first.die();
      await toldSuccessor(result);
    });

    it('looks for a daemon that was restarted, and tells it of the end', async () => {
      const first = await Peer.listen(path);
      const child = start(wrapper, ['echo started; read -r; exit 3'], { env: { AGENTRM_SOCKET: path } });
      const result = finish(child);
      await printed(child, 'started');
      await first.message('late');
      await first[Symbol.asyncDispose]();
      await using second = await Peer.listen(path, succeeding);
      const { op, v, call } = await second.message('adopt');
      assert.deepEqual({ op, v, call }, { op: 'adopt', v: 1, call: 'c0123456789ab' });
      child.stdin.end('\n');
      const { status, stderr } = await result;
      assert.deepEqual([status, stderr], [3, 'agentrm: adopted\n']);
      assert.equal((await second.message('end')).code, 3);
    });

    it('does not spin while there is none', async () => {
      const first = await Peer.listen(path);
      const child = start(wrapper, ['echo started; read -r; exit 3'], { env: { AGENTRM_SOCKET: path } });
      const result = finish(child);
      await printed(child, 'started');
      await first.message('late');
      await first[Symbol.asyncDispose]();
      const cpuTicks = (): number => {
        const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(' ');
        return Number(stat[13]) + Number(stat[14]);
      };
      const before = cpuTicks();
      await setTimeout(500);
      assert.ok(cpuTicks() - before < 10);
      child.stdin.end('\n');
      assert.equal((await result).status, 3);
    });

    it('asks no more when the new daemon does not know the call', async () => {
      const first = await Peer.listen(path);
      const child = start(wrapper, ['echo started; read -r; exit 3'], { env: { AGENTRM_SOCKET: path } });
      const result = finish(child);
      await printed(child, 'started');
      await first.message('late');
      await first[Symbol.asyncDispose]();
      await using second = await Peer.listen(path, (_message, socket) => socket.write('gone\n'));
      await second.message('adopt');
      while (second.sockets.size > 0) await new Promise((resolve) => setImmediate(resolve));
      child.stdin.end('\n');
      assert.equal((await result).status, 3);
      assert.deepEqual(
        second.messages.map(({ op }) => op),
        ['adopt'],
      );
    });
  });

  describe('where the administrator wants no unmanaged call', () => {
    beforeEach(() => writeFileSync(join(dirname(path), 'fail-closed'), ''));

    for (const [name, reply, why] of [
      ['nobody listens', undefined, 'no daemon at '],
      ['the answer is junk', answering('junk\n'), 'no valid answer from the daemon at '],
      ['no answer comes', () => {}, 'no answer in time from the daemon at '],
    ] as const) {
      it(`exits with 125 if ${name}`, async () => {
        await using peer = reply === undefined ? undefined : await Peer.listen(path, reply);
        peer?.stopBeating();
        assert.deepEqual(await call(), {
          status: 125,
          signal: null,
          stdout: '',
          stderr: `agentrm: ${why}${path}, not run (fail-closed)\n`,
        });
      });
    }

    it('exits with 125 if the command cannot be placed', async () => {
      await using _ = await Peer.listen(path, (message, socket) => {
        if (message.op === 'run') socket.write('go c1 move t0ken -\n');
        if (message.op === 'place') socket.end('failed no room\n');
        if (message.op === 'end') socket.end('bye\n');
      });
      assert.deepEqual(await call(), {
        status: 125,
        signal: null,
        stdout: '',
        stderr: 'agentrm: not placed: no room, not run (fail-closed)\n',
      });
    });

    it('holds also for a user’s own daemon that does not run, where the system has none', async () => {
      const runtime = join(dirname(path), 'xdg');
      const own = join(runtime, 'agentrm');
      mkdirSync(own, { recursive: true });
      const plain = await run(wrapper, ['exit 3'], { env: { XDG_RUNTIME_DIR: runtime } });
      assert.deepEqual([plain.status, plain.stderr.includes('running unmanaged')], [3, true]);
      writeFileSync(join(own, 'fail-closed'), '');
      const refused = await run(wrapper, ['exit 3'], { env: { XDG_RUNTIME_DIR: runtime } });
      assert.equal(refused.status, 125);
      assert.equal(refused.stderr, `agentrm: no daemon at ${own}/agentrm.sock, not run (fail-closed)\n`);
    });

    it('runs what the daemon itself lets run unmanaged', async () => {
      await using _ = await Peer.listen(path, answering('go - none -\n'));
      assert.deepEqual(await call(), ended(3));
    });
  });

  it('says how it is used', async () => {
    for (const args of [[], ['bash', '-c', 'true']]) {
      const { status, stdout, stderr } = await run(helper, args);
      assert.deepEqual([status, stdout], [125, '']);
      assert.match(stderr, /^usage: agentrm-run /);
    }
  });

  it('exits like a shell for a shell that is not there', async () => {
    const env = { AGENTRM_SOCKET: path };
    assert.equal((await run(helper, ['/no/such/shell'], { env })).status, 127);
    assert.equal((await run(helper, ['/etc/passwd'], { env })).status, 126);
    await using peer = await Peer.listen(path);
    assert.equal((await run(helper, ['/no/such/shell'], { env })).status, 127);
    assert.equal((await peer.message('end')).code, 127);
  });
});
