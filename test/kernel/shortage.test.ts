// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { loadProgram, TestDaemon, until } from '../lib/daemon.ts';
import { Holder } from '../lib/holder.ts';
import { recordOf } from '../lib/record-of.ts';
import { poolTests } from './pool-tests.ts';
import { actionsOf, BUDGET_MIB, isFor, LAST_RESORT, lastResort, usedMiB } from './shortage-tests.ts';

const MiB = 1024 * 1024;

poolTests('bpf');

test('as a last resort the lowest is killed for the first, and told so', () =>
  lastResort(new TestDaemon({ config: LAST_RESORT })));

test('the kernel itself stops what grows faster than anybody looks', async () => {
  const config = `pool:\n  budget: ${BUDGET_MIB}M\nenforcement:\n  mode: bpf\n`;
  const daemon = await new TestDaemon({ config }).start();
  try {
    const holder = new Holder(daemon, 'kernel-1', 'class=interactive memory.high=max', 75);
    await until(async () => (await usedMiB(daemon, 'kernel-1')) >= 75, 'it holds its memory');
    // Threads keep what each of them has touched until all are done.
    const background = daemon.run(`${loadProgram} --bytes 30M threads 4`, {
      env: { AGENTRM_SESSION: 'kernel-2', AGENTRM_INTENT: 'class=background memory.high=max' },
    });
    await daemon.event(isFor('kernel-2', 'freeze'));
    const whole = Number(readFileSync(`${daemon.cgroup}/memory.current`, 'utf8')) / MiB;
    assert.ok(whole <= BUDGET_MIB * 1.02, `${whole} MiB in use`);
    holder.release();
    assert.equal((await holder.ran).code, 0);
    assert.equal((await background).code, 0);
    const record = await recordOf(daemon, { session: 'kernel-1' });
    assert.deepEqual([record.outcome, actionsOf(record)], ['ok', []]);
  } finally {
    await daemon.close();
  }
});

test('with room in the pool only a memory.high that somebody asked for holds a call up', async () => {
  // Half of it is the memory.high of a call of which nobody says anything.
  const daemon = await new TestDaemon({ config: 'pool:\n  budget: 640M\n' }).start();
  try {
    // As programs grow: for longer than a look of the daemon takes to come.
    const grow = `python3 -c "held = [bytearray(b'x') * ${MiB} for _ in range(420)]"`;
    for (const [session, intent] of [
      ['guessed', ''],
      ['asked', 'memory.high=320M'],
    ] as const) {
      const ran = await daemon.run(grow, { env: { AGENTRM_SESSION: session, AGENTRM_INTENT: intent } });
      assert.equal(ran.code, 0, ran.stderr);
      const record = await recordOf(daemon, { session });
      assert.equal(record.memory.highBytes, 320 * MiB);
      const { throttledMs, frozenMs } = record.memory;
      const [first] = actionsOf(record);
      if (session === 'guessed') assert.deepEqual([first, throttledMs, frozenMs], ['lend', 0, 0]);
      else assert.deepEqual([first, throttledMs > 0], ['freeze', true]);
    }
  } finally {
    await daemon.close();
  }
});
