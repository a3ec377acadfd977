// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import {
  chownSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ContainerRoots } from '../../daemon/kernel/container-roots.ts';
import type { Native } from '../../daemon/kernel/native.ts';
import { createLogger } from '../../daemon/log.ts';
import { fillCgroup, plainTree } from '../lib/plain-tree.ts';

/** The container's process that asks, and its first one. */
const CALLER = 77;
const FIRST = 70;

/** A container in a plain tree whose pids leave one cgroup.procs when they are written to another. */
function setUp(t: TestContext) {
  let ends: (() => void) | undefined;
  const { dir, root, native } = plainTree(t, {
    watch: (_fd: number, _events: string, callback: () => void) => {
      ends = callback;
      return { close: () => {} };
    },
  } as Partial<Native>);
  const proc = join(dir, 'proc');
  for (const [who, space] of [
    ['self', 1],
    [String(CALLER), 2],
    ['78', 1],
  ]) {
    mkdirSync(join(proc, `${who}/ns`), { recursive: true });
    for (const kind of ['pid', 'cgroup']) symlinkSync(`${kind}:[${space}]`, join(proc, `${who}/ns/${kind}`));
  }
  const box = join(dir, 'box');
  const make = () => {
    mkdirSync(box);
    fillCgroup(box);
    writeFileSync(join(box, 'memory.max'), '1000000\n');
    writeFileSync(join(box, 'cgroup.events'), 'populated 1\n');
  };
  make();
  const opened: string[] = [];
  const closed: string[] = [];
  const roots = () =>
    new ContainerRoots({
      native,
      root,
      enabled: () => true,
      log: createLogger({ level: 'fatal', fd: openSync('/dev/null', 'a') }),
      onOpened: ({ path }) => opened.push(path),
      onClosed: ({ path }) => closed.push(path),
      procRoot: proc,
    });
  const containers = roots();
  t.after(() => containers.close());
  return { dir, box, make, containers, roots, opened, closed, end: () => ends?.() };
}

test('a root is made once below the container, whose processes and controllers make room for it', async (t) => {
  const { box, containers, opened } = setUp(t);
  writeFileSync(join(box, 'cgroup.procs'), `${FIRST}\n`);
  const [one, two] = await Promise.all([containers.of(CALLER, '/box'), containers.of(CALLER, '/box/exec')]);
  assert.equal(one, two);
  assert.equal(one?.procPath, '/box/agentrm');
  assert.match(readFileSync(join(box, 'agentrm-processes/cgroup.procs'), 'utf8'), /^70/);
  assert.match(readFileSync(join(box, 'cgroup.subtree_control'), 'utf8'), /\+/);
  assert.equal(containers.of(CALLER, '/box'), one);
  assert.equal(containers.around('/box/agentrm/s1/c1'), one);
  assert.equal(containers.around('/box/agentrm-processes'), undefined);
  assert.deepEqual(opened, [join(box, 'agentrm')]);
});

test('who is in no container, or in one without a limit, stays with the root of the daemon', (t) => {
  const { box, containers } = setUp(t);
  assert.equal(containers.of(78, '/box'), undefined);
  assert.equal(containers.of(99, '/box'), undefined);
  writeFileSync(join(box, 'memory.max'), 'max\n');
  assert.equal(containers.of(CALLER, '/box'), undefined);
  assert.equal(existsSync(join(box, 'agentrm')), false);
});

test('a place that somebody else made is refused, once, and nothing is moved', async (t) => {
  const { box, containers, roots } = setUp(t);
  if (process.getuid?.() !== 0) return t.skip('needs root');
  mkdirSync(join(box, 'agentrm'));
  chownSync(join(box, 'agentrm'), 1000, 1000);
  writeFileSync(join(box, 'cgroup.procs'), `${FIRST}\n`);
  await assert.rejects(async () => containers.of(CALLER, '/box'), /agentrm belongs to somebody else/);
  assert.equal(containers.of(CALLER, '/box'), undefined);
  assert.equal(existsSync(join(box, 'agentrm-processes')), false);
  // A daemon that stops makes no new place, and the next one may.
  rmSync(join(box, 'agentrm'), { recursive: true });
  const next = roots();
  const late = next.of(CALLER, '/box');
  next.close();
  await assert.rejects(async () => late, /the daemon stops/);
});

test('one that cannot give its controllers gets its processes back', async (t) => {
  const { box, containers } = setUp(t);
  rmSync(join(box, 'cgroup.controllers'));
  writeFileSync(join(box, 'cgroup.procs'), `${FIRST}\n`);
  await assert.rejects(async () => containers.of(CALLER, '/box'), /box cannot hold calls: .*controllers/s);
  assert.match(readFileSync(join(box, 'cgroup.procs'), 'utf8'), /^70/);
  assert.equal(existsSync(join(box, 'agentrm-processes')), false);
});

test('it is given up when the container ends, and the next of that name gets its own', async (t) => {
  const { box, containers, make, opened, closed, end } = setUp(t);
  const first = await containers.of(CALLER, '/box');
  end();
  // Something else has happened to it.
  assert.deepEqual(closed, []);
  writeFileSync(join(box, 'cgroup.events'), 'populated 0\n');
  end();
  assert.deepEqual(closed, opened);
  assert.throws(() => first?.cgroup.fd, { code: 'EBADF' });
  rmSync(box, { recursive: true });
  make();
  const second = await containers.of(CALLER, '/box');
  assert.notEqual(second, first);
  // Without news of its end.
  rmSync(box, { recursive: true });
  make();
  assert.notEqual(await containers.of(CALLER, '/box'), second);
  assert.equal(closed.length, 2);
});

test('the next daemon finds those that are still there', async (t) => {
  const { box, containers, roots } = setUp(t);
  await containers.of(CALLER, '/box');
  containers.close();
  const next = roots();
  assert.deepEqual(
    next.restore().map(({ procPath }) => procPath),
    ['/box/agentrm'],
  );
  next.close();
  rmSync(box, { recursive: true });
  assert.deepEqual(roots().restore(), []);
});
