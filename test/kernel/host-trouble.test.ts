// SPDX-License-Identifier: Apache-2.0
// What else a host can do to a daemon: take its socket away, fill its disk, damage or lock its database, run out of
// memory.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { metric } from '../daemon/peers.ts';
import { TestDaemon, until, useMemory } from '../lib/daemon.ts';
import { recordOf } from '../lib/record-of.ts';

const database = (daemon: TestDaemon) => `${daemon.dir}/state/agentrm.db`;

function made(t: TestContext, config = ''): TestDaemon {
  const daemon = new TestDaemon({ config });
  t.after(() => daemon.close());
  return daemon;
}

/** The command is managed: it runs in a cgroup of its own, and is recorded as such. */
async function isManaged(daemon: TestDaemon, word: string): Promise<void> {
  const ran = await daemon.run(`cat /proc/self/cgroup; exit 3 # ${word}`, {
    env: { AGENTRM_SESSION: word },
  });
  assert.deepEqual([ran.code, ran.stderr], [3, '']);
  assert.match(ran.stdout, /\/s[0-9a-f]{12}\/c[0-9a-f]{12}$/m);
  assert.equal((await recordOf(daemon, { session: word })).exitCode, 3);
}

/** A query that waits for the file for too long is answered from memory, which a new daemon has not. */
async function areStored(daemon: TestDaemon, sessions: readonly string[]): Promise<void> {
  let stored: string[] = [];
  await until(async () => {
    stored = (await daemon.calls()).map(({ session }) => session);
    return stored.length >= sessions.length;
  }, 'its file answers');
  assert.deepEqual(stored, sessions);
}

test('the socket is removed: running calls stay managed, and so are those to come', async (t) => {
  const daemon = await made(t).start();
  const go = `${daemon.dir}/go`;
  execFileSync('mkfifo', [go]);
  const running = daemon.run(`read <${go}; exit 4`, { env: { AGENTRM_SESSION: 'running' } });
  await daemon.event(({ kind }) => kind === 'call-start');
  // Over a connection from before.
  const told = daemon.event(({ kind, error }) => kind === 'degraded' && /was removed/.test(String(error)));
  // Who has been answered after it shows that it was let in.
  await daemon.status();
  rmSync(dirname(daemon.socket), { recursive: true });
  await until(() => existsSync(daemon.socket), 'the socket is there again');
  await told;
  await isManaged(daemon, 'after');
  writeFileSync(go, '\n');
  assert.equal((await running).code, 4);
  assert.equal((await recordOf(daemon, { session: 'running' })).exitCode, 4);
});

test('the disk is full: calls run and are recorded, in the file when there is room', async (t) => {
  const daemon = new TestDaemon();
  const state = `${daemon.dir}/state`;
  t.after(async () => {
    await daemon.stop();
    execFileSync('umount', [state]);
    await daemon.close();
  });
  mkdirSync(state);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', state]);
  const filler = `${state}/filler`;
  assert.throws(() => writeFileSync(filler, Buffer.alloc(2 ** 20)), { code: 'ENOSPC' });
  await daemon.start();
  for (const word of ['first', 'second']) await isManaged(daemon, word);
  assert.ok((await metric(daemon, 'agentrm_store_pending')) >= 2, 'they wait in memory');
  rmSync(filler);
  execFileSync('mount', ['-o', 'remount,size=64m', state]);
  await until(async () => (await metric(daemon, 'agentrm_store_pending')) === 0, 'they are written');
  await daemon.crash();
  await daemon.start();
  await areStored(daemon, ['first', 'second']);
});

test('the database is damaged: it is moved aside, which is said, and calls run', async (t) => {
  const daemon = made(t);
  mkdirSync(dirname(database(daemon)));
  writeFileSync(database(daemon), 'no database at all, but something that somebody may want to look at');
  await daemon.start();
  await isManaged(daemon, 'damaged');
  // It is looked at when the first record is written, which nobody waits for; moved, and only then said.
  await until(() => daemon.log.includes('database moved aside'), 'it is moved aside');
  assert.match(readFileSync(`${database(daemon)}.corrupt`, 'utf8'), /^no database at all/);
});

test('another process has locked the database from the start on: calls run, and are written afterwards', async (t) => {
  const daemon = made(t);
  await daemon.start();
  await isManaged(daemon, 'before');
  await daemon.stop();
  const other = new DatabaseSync(database(daemon));
  other.exec('BEGIN EXCLUSIVE');
  try {
    await daemon.start();
    await isManaged(daemon, 'locked');
  } finally {
    other.exec('ROLLBACK');
    other.close();
  }
  await until(async () => (await metric(daemon, 'agentrm_store_pending')) === 0, 'it is written');
  await daemon.crash();
  await daemon.start();
  await areStored(daemon, ['before', 'locked']);
});

test('the host has no memory left: the daemon answers, calls run, and it is not what the kernel kills', async (t) => {
  // As the units start it: with memory.min of its own, and after almost everything else for the OOM killer.
  const slice = `/sys/fs/cgroup/service-${process.pid}`;
  const daemon = await made(t).start();
  mkdirSync(slice);
  t.after(() => until(() => !existsSync(slice) || remove(slice), 'its cgroup is removed'));
  writeFileSync(`${slice}/memory.min`, String(64 * 2 ** 20));
  writeFileSync(`${slice}/cgroup.procs`, String(daemon.pid));
  t.after(() => daemon.close());
  writeFileSync(`/proc/${daemon.pid}/oom_score_adj`, '-900');
  const { pid } = await daemon.status();
  // Not a call: somebody else on the host, who holds nearly all of it, and then wants the rest.
  const hog = spawn(
    '/usr/bin/python3',
    [
      '-c',
      `
import sys
MIB = 2 ** 20
held = []
def available():
    return next(int(line.split()[1]) // 1024 for line in open('/proc/meminfo') if line.startswith('MemAvailable'))
while available() > 40:
    held.append(bytearray(b'x') * (MIB if available() < 256 else 64 * MIB))
print('full', flush=True)
sys.stdin.readline()
while True:
    held.append(bytearray(b'x') * MIB)
`,
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  t.after(() => hog.kill('SIGKILL'));
  const gone = once(hog, 'exit');
  writeFileSync(`/proc/${hog.pid}/oom_score_adj`, '500');
  await once(hog.stdout, 'data');
  // A machine that reads its programs from disk again and again may be late for one answer.
  const answers = () =>
    until(async () => {
      try {
        return (await daemon.status()).pid === pid;
      } catch {
        return false;
      }
    }, 'the daemon answers');
  await answers();
  const ran = await daemon.run('echo ran', { env: { AGENTRM_SESSION: 'full' } });
  assert.deepEqual([ran.code, ran.stdout], [0, 'ran\n']);
  hog.stdin.end('\n');
  // Each answer is asked for while the other takes what is left, until the kernel ends it.
  let over = false;
  void gone.then(() => {
    over = true;
  });
  do await answers();
  while (!over);
  assert.deepEqual(await gone, [null, 'SIGKILL']);
  const after = await daemon.run(`${useMemory(8)} && echo after`);
  assert.deepEqual([after.code, after.stdout], [0, 'after\n']);
});

function remove(path: string): boolean {
  try {
    execFileSync('rmdir', [path], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
