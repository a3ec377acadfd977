// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import type { CallRecord, Event } from '../../daemon/control/types.ts';
import { type TestDaemon, until, useMemory } from '../lib/daemon.ts';
import { Holder } from '../lib/holder.ts';
import { recordOf } from '../lib/record-of.ts';

const MiB = 1024 * 1024;

/** All calls together: what the pool of these daemons has. */
export const BUDGET_MIB = 160;

/** What a call of this session uses; 0 if there is none. */
export async function usedMiB(daemon: TestDaemon, session: string): Promise<number> {
  const live = (await daemon.liveCalls()).find((call) => call.session === session);
  return (live?.memory.usedBytes ?? 0) / MiB;
}

export const actionsOf = (record: CallRecord) => record.decisions.map(({ action }) => action);
export const isFor = (session: string, kind: string) => (event: Event) =>
  event.kind === kind && event.session === session;

/**
 * What calls that want more than the pool has are promised, whoever runs the daemon.
 * @param get the daemon, when the tests run, with a pool of `BUDGET_MIB`.
 */
export function shortageTests(get: () => TestDaemon): void {
  test('the lowest that grows is stopped, and goes on when there is room', async () => {
    const daemon = get();
    const holder = new Holder(daemon, 'room-1', 'class=interactive memory.high=max', 100);
    await until(async () => (await usedMiB(daemon, 'room-1')) >= 100, 'it holds its memory');
    const background = daemon.run(useMemory(90), {
      env: { AGENTRM_SESSION: 'room-2', AGENTRM_INTENT: 'class=background memory.high=max' },
    });
    await daemon.event(isFor('room-2', 'freeze'));
    // It grows no further, and leaves what was kept for the other.
    const frozenAt = await usedMiB(daemon, 'room-2');
    const whole = Number(readFileSync(`${daemon.cgroup}/memory.current`, 'utf8')) / MiB;
    assert.ok(whole <= BUDGET_MIB * 1.02, `${whole} MiB in use`);
    assert.ok(frozenAt < 90 && frozenAt > 30, `${frozenAt} MiB`);
    holder.release();
    assert.equal((await holder.ran).code, 0);
    const ran = await background;
    assert.equal(ran.code, 0, ran.stderr);
    assert.deepEqual(actionsOf(await recordOf(daemon, { session: 'room-1' })), []);
    const record = await recordOf(daemon, { session: 'room-2' });
    assert.equal(record.outcome, 'ok');
    assert.deepEqual(actionsOf(record).slice(0, 2), ['freeze', 'thaw']);
    assert.ok(record.memory.frozenMs > 0);
    assert.equal(record.memory.oomKills, 0);
  });
}

/** Of a daemon that `lastResort` takes: there is more in its pool than what somebody limits all calls together to. */
export const LAST_RESORT = 'pool:\n  budget: 1G\n';

/**
 * The kill of last resort: nothing beyond the limit of all calls could be lent.
 * @param daemon not started yet; closed at the end.
 */
export async function lastResort(daemon: TestDaemon): Promise<void> {
  await daemon.start();
  try {
    writeFileSync(`${daemon.cgroup}/memory.max`, `${BUDGET_MIB * MiB}`);
    const holder = new Holder(daemon, 'last-1', 'class=interactive memory.high=max', 75);
    await until(async () => (await usedMiB(daemon, 'last-1')) >= 75, 'it holds its memory');
    const background = daemon.run(useMemory(125), {
      env: { AGENTRM_SESSION: 'last-2', AGENTRM_INTENT: 'class=background memory.high=max' },
    });
    await daemon.event(isFor('last-2', 'freeze'));
    // What the frozen one holds is needed now.
    holder.release(60);
    const ran = await background;
    assert.match(ran.stderr, /^agentrm: killed for memory: the host had none left to lend /m);
    assert.equal((await recordOf(daemon, { session: 'last-2' })).outcome, 'killed');
    assert.equal((await holder.ran).code, 0);
    assert.equal((await recordOf(daemon, { session: 'last-1' })).outcome, 'ok');
  } finally {
    await daemon.close();
  }
}
