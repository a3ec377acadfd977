// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync, rmSync, symlinkSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { writeBeat } from './peer.ts';
import { guard, printed, run, scratch, unbuilt } from './shell.ts';

/** Prints the first datagram that reaches the given unix address. */
const receiver = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace('@', chr(0), 1))
print('bound', flush=True)
print(s.recv(4096).decode(), flush=True)
`;

describe('agentrm-guard', { skip: unbuilt }, () => {
  const folder = scratch();
  const cgroups = ['root', 'root/s1', 'root/s1/c1', 'root/s1/c1/nested', 'root/s2', 'root/s2/c2'];
  const started: ChildProcess[] = [];
  let count = 0;
  let path = '';

  /** A tree with the files of cgroups; thawed ones are told by what is written to them. */
  const freeze = (): void => {
    for (const name of cgroups) writeFileSync(join(path, name, 'cgroup.freeze'), '1');
  };
  const frozen = (): string[] =>
    cgroups.filter((name) => readFileSync(join(path, name, 'cgroup.freeze'), 'utf8') === '1');
  const heartbeat = (): string => join(path, 'heartbeat');

  beforeEach(() => {
    count += 1;
    path = join(folder.path, `${count}`);
    for (const name of cgroups) {
      mkdirSync(join(path, name), { recursive: true });
      writeFileSync(join(path, name, 'cgroup.procs'), '');
    }
    freeze();
    writeBeat(heartbeat());
  });
  afterEach(() => {
    for (const child of started.splice(0)) child.kill('SIGKILL');
  });
  after(() => folder[Symbol.dispose]());

  const startGuard = (stdin: 'pipe' | number = 'pipe', env: Record<string, string> = {}): ChildProcess => {
    const args = [
      '--cgroup',
      join(path, 'root'),
      '--heartbeat',
      heartbeat(),
      '--pins',
      join(path, 'no-pins'),
    ];
    const child = spawn(guard, args, { stdio: [stdin, 'pipe', 'pipe'], env });
    started.push(child);
    return child;
  };
  /** Resolves when the guard has said that it acts; it thaws right after. */
  const says = async (child: ChildProcess, text: string): Promise<void> => {
    const [line] = (await once(child.stderr ?? child, 'data')) as [Buffer];
    assert.equal(line.toString(), `agentrm-guard: ${text}\n`);
  };
  const allThawed = (): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => {
        if (frozen().length > 0) return;
        for (const watcher of watchers) watcher.close();
        resolve();
      };
      const watchers = cgroups.map((name) => watch(join(path, name), done));
      done();
    });

  it('thaws everything when the daemon dies, and ends once another one beats', async () => {
    const child = startGuard();
    const exit = once(child, 'exit');
    child.stdin?.destroy();
    await says(child, 'the daemon has ended, thawing');
    await allThawed();
    writeBeat(heartbeat());
    assert.deepEqual(await exit, [0, null]);
  });

  it('thaws what is frozen shortly after, too, and ends by itself', async () => {
    const child = startGuard();
    const exit = once(child, 'exit');
    child.stdin?.destroy();
    await says(child, 'the daemon has ended, thawing');
    await allThawed();
    freeze();
    await allThawed();
    assert.deepEqual(await exit, [0, null]);
  });

  it('touches nothing when the daemon says that it stops in order', async () => {
    const child = startGuard();
    const exit = once(child, 'exit');
    child.stdin?.end('q');
    assert.deepEqual(await exit, [0, null]);
    assert.deepEqual(frozen(), cgroups);
  });

  it('thaws everything when the heart stops, and goes on watching', async () => {
    const child = startGuard();
    await says(child, 'no heartbeat, thawing');
    await allThawed();
    writeBeat(heartbeat());
    await says(child, 'the heartbeat is back');
    freeze();
    rmSync(heartbeat());
    await says(child, 'no heartbeat, thawing');
    await allThawed();
    assert.deepEqual([child.exitCode, child.signalCode], [null, null]);
  });

  it('leaves everything as it is while the heart beats', async () => {
    const beats = setInterval(() => writeBeat(heartbeat()), 100);
    const child = startGuard();
    const said = once(child.stderr ?? child, 'data');
    // Two ticks later than it would have acted.
    const waited = new Promise((resolve) => setTimeout(resolve, 3000, 'nothing'));
    try {
      assert.equal(await Promise.race([said, waited]), 'nothing');
    } finally {
      clearInterval(beats);
    }
    assert.deepEqual(frozen(), cgroups);
  });

  it('takes no end of /dev/null for the end of a daemon', async () => {
    const child = startGuard(openSync('/dev/null', 'r'));
    await says(child, 'no heartbeat, thawing');
    await allThawed();
  });

  it('is not ended by the terminal of its daemon', async () => {
    const child = startGuard();
    const exit = once(child, 'exit');
    await says(child, 'no heartbeat, thawing');
    child.kill('SIGHUP');
    child.kill('SIGINT');
    child.stdin?.end('q');
    assert.deepEqual(await exit, [0, null]);
  });

  it('does not leave the tree by a link, and passes over what is gone', async () => {
    mkdirSync(join(path, 'outside'));
    writeFileSync(join(path, 'outside/cgroup.freeze'), '1');
    symlinkSync('../outside', join(path, 'root/link'));
    symlinkSync('../../outside/cgroup.freeze', join(path, 'root/s1/other'));
    rmSync(join(path, 'root/s2/c2/cgroup.procs'));
    mkdirSync(join(path, 'root/s3'));
    symlinkSync('../../outside/cgroup.freeze', join(path, 'root/s3/cgroup.freeze'));
    const child = startGuard();
    const exit = once(child, 'exit');
    child.stdin?.destroy();
    await allThawed();
    writeBeat(heartbeat());
    await exit;
    assert.equal(readFileSync(join(path, 'outside/cgroup.freeze'), 'utf8'), '1');
  });

  it('ends in order if there is no such cgroup', async () => {
    rmSync(join(path, 'root'), { recursive: true });
    const child = startGuard();
    const exit = once(child, 'exit');
    child.stdin?.destroy();
    await says(child, 'the daemon has ended, thawing');
    writeBeat(heartbeat());
    assert.deepEqual(await exit, [0, null]);
  });

  for (const kind of ['path', 'abstract name']) {
    it(`tells a service manager that it is ready, by ${kind}`, async () => {
      const address = kind === 'path' ? join(path, 'notify') : `@agentrm-guard-${process.pid}`;
      const manager = spawn('python3', ['-c', receiver, address], { stdio: ['ignore', 'pipe', 'inherit'] });
      started.push(manager);
      await printed(manager, 'bound\n');
      startGuard('pipe', { NOTIFY_SOCKET: address });
      await printed(manager, 'READY=1\n');
    });
  }

  it('says how it is used', async () => {
    for (const args of [
      [],
      ['--cgroup', '/x'],
      ['--cgroup', '/x', '--heartbeat', '/y', 'more'],
      ['--what'],
    ]) {
      const result = await run(guard, args);
      assert.equal(result.status, 2);
      assert.match(result.stderr, /usage: agentrm-guard --cgroup DIRECTORY --heartbeat FILE/);
    }
  });
});
