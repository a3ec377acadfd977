// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { agentrmBash, loadProgram, TestDaemon, until, useMemory } from '../lib/daemon.ts';
import { Holder } from '../lib/holder.ts';
import { recordOf } from '../lib/record-of.ts';
import { actionsOf, BUDGET_MIB, isFor, shortageTests, usedMiB } from './shortage-tests.ts';

const MiB = 1024 * 1024;

/** What the pool does whoever enforces. */
export function poolTests(mode: 'bpf' | 'user'): void {
  describe(`calls that want more than the pool has (${mode})`, () => {
    let daemon: TestDaemon;
    before(async () => {
      // A command that has to wait for the emulated machine is not what is tested here.
      const admission = 'admission:\n  wait: 10ms\n';
      const config = `pool:\n  budget: ${BUDGET_MIB}M\nenforcement:\n  mode: ${mode}\n${admission}`;
      daemon = await new TestDaemon({ config }).start();
      assert.equal((await daemon.status()).backend.mode, mode);
    });
    after(() => daemon.close());

    test('with memory to spare nobody is slowed', async () => {
      const holder = new Holder(daemon, 'spare-1', 'class=interactive memory.high=max', 50);
      await until(async () => (await usedMiB(daemon, 'spare-1')) >= 50, 'it holds its memory');
      const ran = await daemon.run(useMemory(75), {
        env: { AGENTRM_SESSION: 'spare-2', AGENTRM_INTENT: 'class=background memory.high=max' },
      });
      assert.deepEqual([ran.code, ran.stderr], [0, '']);
      holder.release();
      assert.equal((await holder.ran).code, 0);
      for (const session of ['spare-1', 'spare-2']) {
        assert.deepEqual(actionsOf(await recordOf(daemon, { session })), []);
      }
    });

    shortageTests(() => daemon);

    test('who holds a lock that another call waits for is let go on', async () => {
      const lock = `${daemon.dir}/lock`;
      const holder = new Holder(daemon, 'lock-1', 'class=interactive memory.high=max', 100);
      await until(async () => (await usedMiB(daemon, 'lock-1')) >= 100, 'it holds its memory');
      const background = daemon.run(`flock ${lock} ${useMemory(80)}`, {
        env: { AGENTRM_SESSION: 'lock-2', AGENTRM_INTENT: 'class=background memory.high=max' },
      });
      await daemon.event(isFor('lock-2', 'freeze'));
      const waiting = await daemon.run(`flock ${lock} echo mine`, {
        env: { AGENTRM_SESSION: 'lock-3', AGENTRM_INTENT: 'class=interactive' },
      });
      assert.equal(waiting.stdout, 'mine\n');
      assert.equal((await background).code, 0);
      const reasons = (await recordOf(daemon, { session: 'lock-2' })).decisions.map(({ reason }) => reason);
      assert.ok(reasons.includes('another call waits for its lock'), JSON.stringify(reasons));
      holder.release();
      assert.equal((await holder.ran).code, 0);
    });

    test('who holds still is not stopped by what others come to', async () => {
      const [rounds, end] = [`${daemon.dir}/rounds`, `${daemon.dir}/end`];
      const run = (session: string, intent: string, program: string) =>
        // On one CPU: each has pages charged ahead.
        daemon.run(`exec taskset -c 0 python3 -c "${program}"`, {
          env: { AGENTRM_SESSION: session, AGENTRM_INTENT: `class=${intent} memory.high=max` },
        });
      // Each fourth round uses up what is charged ahead, and all give it back.
      const still = run(
        'still-1',
        'background',
        `import mmap, os, time
held = b'x' * (45 << 20)
rounds = os.open('${rounds}', os.O_WRONLY | os.O_CREAT)
for number in range(1, 1000000):
    if os.path.exists('${end}'): break
    pages = mmap.mmap(-1, 16 << 12, mmap.MAP_PRIVATE)
    pages[::1 << 12] = b'x' * 16
    pages.close()
    os.pwrite(rounds, b'%d' % number, 0)
    time.sleep(0.1)`,
      );
      const done = () => (existsSync(rounds) ? Number(readFileSync(rounds, 'utf8')) : 0);
      await until(() => done() > 0, 'it holds its memory');
      const whole = () => Number(readFileSync(`${daemon.cgroup}/memory.current`, 'utf8')) / MiB;
      // From well below the line of the first, which is 12 MiB below the budget, slowly to beyond it: what comes to it in
      // one burst is there before anybody can have looked who holds still.
      const grows = run(
        'still-2',
        'interactive',
        `import os, time
def whole(): return int(open('${daemon.cgroup}/memory.current').read()) >> 20
held = []
while whole() < ${BUDGET_MIB - 20}: held.append(b'x' * (1 << 19))
for _ in range(64):
    held.append(b'x' * (1 << 18))
    time.sleep(0.05)
while not os.path.exists('${end}'): time.sleep(0.05)`,
      );
      await until(() => whole() >= BUDGET_MIB - 8, 'the pool is nearly used up');
      const before = done();
      await until(() => done() > before + 10, 'the first goes on');
      writeFileSync(end, '');
      assert.deepEqual([(await still).code, (await grows).code], [0, 0]);
      for (const session of ['still-1', 'still-2']) {
        assert.deepEqual((await recordOf(daemon, { session })).decisions, [], session);
      }
    });

    test('who may go on keeps the text of its program at the tripwire', async () => {
      // What is in the page cache already is charged to whoever read it first.
      writeFileSync('/proc/sys/vm/drop_caches', '1');
      const intents = {
        'text-1': ['class=background memory.high=max', 60],
        'text-2': ['class=background', 1],
      } as const;
      const still = Object.entries(intents).map(
        ([session, [intent, mib]]) => new Holder(daemon, session, intent, mib),
      );
      const whole = () => Number(readFileSync(`${daemon.cgroup}/memory.current`, 'utf8'));
      await until(() => whole() >= 61 * MiB, 'both hold their memory');
      const program = [loadProgram, '--bytes', '78M', 'reread', process.execPath, '12M'];
      const running = spawn(agentrmBash, ['-c', `exec ${program.join(' ')}`], {
        env: daemon.env({ AGENTRM_SESSION: 'text-3', AGENTRM_INTENT: 'class=interactive memory.high=max' }),
        stdio: 'ignore',
      });
      const ended = once(running, 'exit');
      // The tripwire is where the pool is used to without its text.
      await until(() => whole() >= 150 * MiB, 'all of it is in memory');
      running.kill('SIGTERM');
      await ended;
      for (const holder of still) holder.release();
      for (const holder of still) assert.equal((await holder.ran).code, 0);
      assert.deepEqual(actionsOf(await recordOf(daemon, { session: 'text-3' })), []);
    });

    test('the tripwire stands while the daemon does, and not after it', async () => {
      const high = () => readFileSync(`${daemon.cgroup}/memory.high`, 'utf8').trim();
      const alone = Math.floor((BUDGET_MIB * MiB * 0.988) / 4096) * 4096;
      await until(() => Number(high()) === alone, 'with one call or none it stands near the budget');
      const both = ['crowd-1', 'crowd-2'].map(
        (session) => new Holder(daemon, session, 'class=background', 1),
      );
      // A step is 4 MiB at least, and the line of the second of them three below the budget.
      await until(() => Number(high()) === (BUDGET_MIB - 12) * MiB, 'with two it stands at the lowest line');
      for (const holder of both) holder.release();
      for (const holder of both) assert.equal((await holder.ran).code, 0);
      await until(() => Number(high()) === alone, 'with none it is back');
      await daemon.crash();
      await until(() => high() === 'max', 'the guard has taken it away');
      await daemon.start();
      // The last tick of the guard may be later than the line of the next daemon, which matters from the next call on.
      const next = new Holder(daemon, 'crowd-3', 'class=background', 1);
      await until(() => high() !== 'max', 'the next daemon sets it');
      next.release();
      assert.equal((await next.ran).code, 0);
      await daemon.stop();
      assert.equal(high(), 'max');
    });
  });

  test(`who is within its session's guarantee is not stopped for what others have borrowed (${mode})`, async () => {
    // Three sessions, each guaranteed less than its part.
    const pool = 'pool:\n  budget: 256M\n  guarantee:\n    background: 64M\n';
    const daemon = await new TestDaemon({ config: `${pool}enforcement:\n  mode: ${mode}\n` }).start();
    try {
      const holder = new Holder(daemon, 'own-1', 'class=background memory.high=max', 90);
      await until(async () => (await usedMiB(daemon, 'own-1')) >= 90, 'it holds its memory');
      const borrower = daemon.run(useMemory(190), {
        env: { AGENTRM_SESSION: 'own-2', AGENTRM_INTENT: 'class=background memory.high=max' },
      });
      await daemon.event(isFor('own-2', 'freeze'));
      // The last in order, in a pool that those before it have used up: slowly, so that it is seen to grow.
      const grow = `import time
held = []
for _ in range(48):
    held.append(b'x' * (1 << 18))
    time.sleep(0.05)`;
      const ran = await daemon.run(`exec python3 -c "${grow}"`, {
        env: { AGENTRM_SESSION: 'own-3', AGENTRM_INTENT: 'class=background memory.high=max' },
      });
      assert.equal(ran.code, 0, ran.stderr);
      assert.deepEqual(actionsOf(await recordOf(daemon, { session: 'own-3' })), []);
      holder.release();
      assert.equal((await holder.ran).code, 0);
      assert.equal((await borrower).code, 0);
    } finally {
      await daemon.close();
    }
  });
}
