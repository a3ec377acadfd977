// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { containerCeiling } from '../../daemon/kernel/container.ts';
import { hostMemory, hostPressure, parseFlatKeyed, parsePressure } from '../../daemon/kernel/host.ts';
import { blockedLocks } from '../../daemon/kernel/locks.ts';
import {
  ancestors,
  cgroupNamespaceOf,
  cgroupPathOf,
  childrenOf,
  childrenOfThreads,
  isAlive,
  type ProcessId,
  processStat,
} from '../../daemon/kernel/proc.ts';
import { cgroupMountOf } from '../../daemon/kernel/tree.ts';

/** A directory with these files, by path; gone after the test. */
function tree(t: TestContext, files: Readonly<Record<string, string>>): string {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-proc-'));
  t.after(() => rmSync(dir, { recursive: true }));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, path)), { recursive: true });
    writeFileSync(join(dir, path), text, 'latin1');
  }
  return dir;
}

/** The line of /proc/PID/stat. */
function stat(pid: number, comm: string, ppid: number, startTicks: number, state = 'S'): string {
  const between = '1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0';
  return `${pid} (${comm}) ${state} ${ppid} ${between} ${startTicks} 1000 1 0 0\n`;
}

test('a process is read whatever it calls itself', (t) => {
  const dir = tree(t, {});
  const comm = fc.string({ unit: fc.constantFrom(...') (\n\\\t 19RSZ\xff\0'), maxLength: 15 });
  fc.assert(
    fc.property(comm, fc.nat(4_000_000), fc.nat(), (name, ppid, startTicks) => {
      mkdirSync(join(dir, '7'), { recursive: true });
      writeFileSync(join(dir, '7/stat'), stat(7, name, ppid, startTicks, 'D'), 'latin1');
      assert.deepEqual(processStat(7, dir), { pid: 7, ppid, startTicks, comm: name, state: 'D' });
    }),
  );
});

test('a process that has gone is told from one that cannot be read', (t) => {
  const dir = tree(t, { '8': 'not a directory', '9/stat': '', '9/cgroup': '' });
  mkdirSync(join(dir, '10/stat'), { recursive: true });
  assert.equal(processStat(7, dir), undefined);
  assert.equal(processStat(9, dir), undefined);
  assert.equal(cgroupPathOf(7, dir), undefined);
  assert.equal(cgroupPathOf(9, dir), undefined);
  assert.throws(() => processStat(8, dir), { code: 'ENOTDIR', path: join(dir, '8/stat') });
  assert.throws(() => processStat(10, dir), { code: 'EISDIR' });
});

test('cgroup namespaces are told apart; that of one who has gone is not known', (t) => {
  const dir = tree(t, {});
  for (const [pid, inode] of Object.entries({ 7: 4026531835, 8: 4026532501 })) {
    mkdirSync(join(dir, pid, 'ns'), { recursive: true });
    symlinkSync(`cgroup:[${inode}]`, join(dir, pid, 'ns/cgroup'));
  }
  assert.equal(cgroupNamespaceOf(7, dir), 'cgroup:[4026531835]');
  assert.notEqual(cgroupNamespaceOf(8, dir), cgroupNamespaceOf(7, dir));
  assert.equal(cgroupNamespaceOf(9, dir), undefined);
  assert.equal(cgroupNamespaceOf('self'), cgroupNamespaceOf(process.pid));
});

test('a recycled pid and a zombie are not alive', (t) => {
  const dir = tree(t, {
    '7/stat': stat(7, 'a', 1, 100),
    '8/stat': stat(8, 'b', 1, 100, 'Z'),
  });
  assert.equal(isAlive({ pid: 7, startTicks: 100 }, dir), true);
  assert.equal(isAlive({ pid: 7, startTicks: 99 }, dir), false);
  assert.equal(isAlive({ pid: 8, startTicks: 100 }, dir), false);
  assert.equal(isAlive({ pid: 9, startTicks: 100 }, dir), false);
});

test('ancestors: nearest first, without init, and no endless chain', (t) => {
  const dir = tree(t, {
    '1/stat': stat(1, 'init', 0, 1),
    '5/stat': stat(5, 'agent', 1, 50),
    '6/stat': stat(6, 'sh', 5, 60),
    '7/stat': stat(7, 'w', 6, 70),
    '20/stat': stat(20, 'loop', 21, 1),
    '21/stat': stat(21, 'loop', 20, 1),
  });
  assert.deepEqual(
    ancestors(7, dir).map(({ pid, startTicks, comm }) => [pid, startTicks, comm]),
    [
      [6, 60, 'sh'],
      [5, 50, 'agent'],
    ],
  );
  assert.equal(ancestors(20, dir).length, 64);
  assert.deepEqual(ancestors(99, dir), []);
});

test('children: of all threads, with their start times, and none that is not any more', async (t) => {
  const dir = tree(t, {
    '2/stat': stat(2, 'w', 1, 20),
    '2/task/2/children': '3 5 ',
    '2/task/9/children': '4 6 7 ',
    '3/stat': stat(3, ') R 1', 2, 30),
    '3/task/3/children': '8 ',
    '4/stat': stat(4, 'b', 2, 40, 'Z'),
    // Its number is another's since.
    '5/stat': stat(5, 'c', 1, 50),
    '7/stat': stat(7, 'd', 2, 70),
    '8/stat': stat(8, 'e', 3, 80),
  });
  mkdirSync(join(dir, '2/task/10'));
  const children = (pid: number, startTicks: number) => childrenOfThreads({ pid, startTicks }, dir);
  const found = (await children(2, 20)).sort((a, b) => a.pid - b.pid);
  assert.deepEqual(
    found.map(({ pid, startTicks }) => [pid, startTicks]),
    [
      [3, 30],
      [4, 40],
      [7, 70],
    ],
  );
  assert.deepEqual(await children(2, 19), [], 'of another that had the number');
  assert.deepEqual(await children(6, 60), []);
});

test('children: of a thread that is not the first, as the kernel lists them', async (t) => {
  const threads = "new Worker(`require('child_process').spawn('sleep', ['1000'])`, { eval: true })";
  const parent = spawn(process.execPath, ['-e', `const { Worker } = require('worker_threads'); ${threads}`]);
  t.after(() => parent.kill('SIGKILL'));
  const id = processStat(parent.pid ?? 0) ?? assert.fail();
  let found: readonly ProcessId[] = [];
  while (found.length === 0) found = await childrenOfThreads(id);
  t.after(() => process.kill(found[0]?.pid ?? 0, 'SIGKILL'));
  assert.deepEqual(childrenOf(id.pid), []);
  assert.equal(processStat(found[0]?.pid ?? 0)?.ppid, id.pid);
});

test('children: however many they are, the main loop gets its turns', async (t) => {
  const files: Record<string, string> = { '2/stat': stat(2, 'w', 1, 20) };
  const pids = Array.from({ length: 320 }, (_, index) => index + 3);
  for (const pid of pids) files[`${pid}/stat`] = stat(pid, 'c', 2, pid);
  const dir = tree(t, { ...files, '2/task/2/children': pids.join(' ') });
  let turns = 0;
  let over = false;
  const count = () => {
    turns += 1;
    if (!over) setImmediate(count);
  };
  setImmediate(count);
  assert.equal((await childrenOfThreads({ pid: 2, startTicks: 20 }, dir)).length, pids.length);
  over = true;
  assert.ok(turns >= 10, `${turns} turns`);
});

test('the path of a process in cgroup v2, also beside v1 hierarchies', (t) => {
  const dir = tree(t, {
    '7/cgroup': '12:memory:/v1\n1:name=systemd:/x\n0::/a b/c:d\n',
    '8/cgroup': '12:memory:/v1\n',
  });
  assert.equal(cgroupPathOf(7, dir), '/a b/c:d');
  assert.equal(cgroupPathOf(8, dir), undefined);
});

test('meminfo: bytes, and the field that is missing by name', (t) => {
  const text = 'MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    500 kB\nSwapFree:  7 kB\n';
  const dir = tree(t, { meminfo: text, 'old/meminfo': text.replace('MemAvailable', 'Other') });
  assert.deepEqual(hostMemory(dir), {
    totalBytes: 1_024_000,
    availableBytes: 512_000,
    swapFreeBytes: 7168,
  });
  assert.throws(() => hostMemory(`${dir}/old`), /old\/meminfo: no MemAvailable/);
  assert.throws(() => hostMemory(`${dir}/none`), { code: 'ENOENT' });
});

test('pressure: both lines, one line, none', (t) => {
  const some = 'some avg10=12.34 avg60=5.00 avg300=1.00 total=987654\n';
  const dir = tree(t, { 'pressure/memory': `${some}full avg10=1.50 avg60=0.00 avg300=0.00 total=55\n` });
  assert.deepEqual(hostPressure('memory', dir), {
    someAvg10: 12.34,
    fullAvg10: 1.5,
    someTotalUs: 987_654,
    fullTotalUs: 55,
  });
  assert.equal(hostPressure('io', dir), undefined);
  assert.deepEqual(parsePressure(some), {
    someAvg10: 12.34,
    fullAvg10: 0,
    someTotalUs: 987_654,
    fullTotalUs: 0,
  });
  assert.equal(parsePressure('').someAvg10, 0);
});

test('a flat keyed file comes back as it was written', () => {
  const key = fc.stringMatching(/^[a-z_.]{1,20}$/);
  fc.assert(
    fc.property(fc.dictionary(key, fc.maxSafeNat()), (values) => {
      const text = Object.entries(values)
        .map(([name, value]) => `${name} ${value}\n`)
        .join('');
      assert.deepEqual(new Map(Object.entries(values)), parseFlatKeyed(text));
    }),
  );
});

test('what a container still allows is the least of what stands above the caller', (t) => {
  const dir = tree(t, {
    'docker/memory.max': '1000000\n',
    'docker/memory.current': '400000\n',
    'docker/abc/memory.max': '700000\n',
    'docker/abc/memory.current': '50000\n',
    'docker/abc/app/memory.max': 'max\n',
    'full/memory.max': '1000\n',
    'full/memory.current': '999999\n',
    'free/memory.max': 'max\n',
    'odd/memory.max': '\n',
  });
  const ceiling = (path: string) => containerCeiling(`${dir}/agentrm`, '/agentrm', path);
  assert.equal(ceiling('/docker/abc/app'), 600_000);
  assert.equal(ceiling('/docker/abc'), 600_000);
  assert.equal(ceiling('/full'), 4096);
  for (const path of ['/free', '/odd', '/gone', '/']) assert.equal(ceiling(path), undefined, path);
});

test('the mount of cgroup v2 that a path is below: the nearest, by whole names', (t) => {
  const dir = tree(t, {
    'self/mountinfo': [
      '24 1 0:5 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw',
      '25 24 0:26 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate',
      '26 24 0:27 / /mnt/two\\040words rw - cgroup2 cgroup2 rw',
      '27 24 0:28 / /mnt/two\\040words/deep rw - cgroup2 none rw',
      '',
    ].join('\n'),
  });
  assert.equal(cgroupMountOf('/sys/fs/cgroup/unified/agentrm', dir), '/sys/fs/cgroup/unified');
  assert.equal(cgroupMountOf('/sys/fs/cgroup/agentrm', dir), undefined);
  assert.equal(cgroupMountOf('/sys/fs/cgroup/unified2/agentrm', dir), undefined);
  assert.equal(cgroupMountOf('/mnt/two words/deep/er', dir), '/mnt/two words/deep');
  assert.throws(() => cgroupMountOf('/x', `${dir}/none`), { code: 'ENOENT' });
});

test('who waits for whose file lock', (t) => {
  const locks = [
    '1: POSIX  ADVISORY  READ  812 00:1a:1029 128 128',
    '2: FLOCK  ADVISORY  WRITE 901 fe:00:525 0 EOF',
    '2: -> FLOCK  ADVISORY  WRITE 902 fe:00:525 0 EOF',
    '2:  -> FLOCK  ADVISORY  WRITE 903 fe:00:525 0 EOF',
    '3: LEASE  ACTIVE    READ  77 fe:00:9 0 EOF',
    '4: OFDLCK ADVISORY  WRITE -1 fe:00:527 0 EOF',
    '4: -> OFDLCK ADVISORY  WRITE -1 fe:00:527 0 EOF',
    '5: POSIX  *NOINODE* WRITE 904 00:00:0 0 EOF',
    'no lock at all',
    '',
  ];
  const dir = tree(t, { locks: locks.join('\n') });
  assert.deepEqual(blockedLocks(dir), [
    { holder: 901, waiter: 902 },
    { holder: 901, waiter: 903 },
  ]);
  assert.deepEqual(blockedLocks(join(dir, 'absent')), []);
});
