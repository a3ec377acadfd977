// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { unitOf } from '../../daemon/kernel/attach.ts';
import { limitedAncestor } from '../../daemon/kernel/container.ts';
import { commonAncestor, mayMove, memoryBelow } from '../../daemon/kernel/delegation.ts';

function tree(t: TestContext, files: Record<string, string>): string {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-delegated-'));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  return dir;
}

test('the nearest cgroup that two are in, by whole names', () => {
  assert.equal(commonAncestor('/a/b/c', '/a/b/d'), '/a/b');
  assert.equal(commonAncestor('/a/b', '/a/bb'), '/a');
  assert.equal(commonAncestor('/a/b', '/a/b/c'), '/a/b');
  assert.equal(commonAncestor('/a', '/b'), '');
  assert.equal(commonAncestor('/a', ''), '');
});

test('a user may move what is below a cgroup whose cgroup.procs is that user’s to write', (t) => {
  const dir = tree(t, { 'cgroup.procs': '', 'user/cgroup.procs': '', 'user/own/cgroup.procs': '' });
  const { uid } = statSync(dir);
  const other = uid + 1;
  const from = (path: string, who: number) => mayMove(dir, '/user/own/calls', path, who);
  assert.equal(from('/user/own/agent', uid), true);
  assert.equal(from('/user/own/agent', other), false);
  assert.equal(from('/', other), false);
  // Nobody's: it has gone meanwhile.
  assert.equal(mayMove(dir, '/gone/calls', '/gone/agent', other), false);
  chmodSync(join(dir, 'user/cgroup.procs'), 0o444);
  if (uid !== 0) assert.equal(from('/user/session', uid), false);
});

test('the memory of a part of the hierarchy is the least that stands above it', (t) => {
  const dir = tree(t, {
    'slice/memory.max': '8000\n',
    'slice/memory.current': '5000\n',
    'slice/memory.stat': 'anon 1\ninactive_file 1000\nactive_file 7\n',
    'slice/user/memory.max': 'max\n',
    'slice/user/memory.high': '6000\n',
    'slice/user/memory.current': '500\n',
    'slice/user/calls/memory.max': '1\n',
  });
  const host = { totalBytes: 10_000, availableBytes: 9000, swapFreeBytes: 3 };
  // Its own limit is not above it.
  assert.deepEqual(memoryBelow(host, dir, `${dir}/slice/user/calls`), {
    totalBytes: 6000,
    availableBytes: 4000,
    swapFreeBytes: 3,
  });
  assert.deepEqual(memoryBelow(host, dir, `${dir}/calls`), host);
});

test('the unit that process 1 knows, and what is below it', () => {
  assert.deepEqual(unitOf('/user.slice/user-7.slice/user@7.service/agentrm.slice/x.service/calls'), {
    name: 'user@7.service',
    below: '/agentrm.slice/x.service/calls',
  });
  assert.deepEqual(unitOf('/a.slice/b.scope'), { name: 'b.scope', below: '/' });
  assert.equal(unitOf('/a.slice/agentrm'), undefined);
});

test('a container is the nearest cgroup with a limit that the root is not in', (t) => {
  const dir = tree(t, {
    'machine/memory.max': '9\n',
    'machine/box/memory.max': '5\n',
    'machine/box/init/memory.max': 'max\n',
    'free/memory.max': 'max\n',
  });
  const container = (root: string, path: string) => limitedAncestor(dir, root, path);
  assert.equal(container('/agentrm', '/machine/box/init'), '/machine/box');
  assert.equal(container('/agentrm', '/machine/gone'), '/machine');
  assert.equal(container('/agentrm', '/free'), undefined);
  assert.equal(container('/machine/box/calls', '/machine/box/init'), undefined);
});
