// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { decideAdmission } from '../../daemon/policy/admission.ts';
import { type PoolCall, poolState } from '../../daemon/policy/pool.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const settings = { budgetBytes: 8 * GIB, keepAvailableBytes: GIB };

describe('poolState', () => {
  test('counts what is used, not what may be used', () => {
    const sleepers = Array.from({ length: 100 }, () => ({
      usageBytes: 10 * MIB,
      highBytes: 2 * GIB,
      declaredHighBytes: 2 * GIB,
    }));
    const pool = poolState({ memAvailableBytes: 100 * GIB }, sleepers, settings);
    assert.equal(pool.usedBytes, 1000 * MIB);
    assert.equal(pool.promisedBytes, 0);
    assert.equal(pool.roomBytes, 8 * GIB - 1000 * MIB);
  });

  test('sets aside what was lent and is not used yet', () => {
    const call = { usageBytes: 100 * MIB, highBytes: 300 * MIB, declaredHighBytes: 64 * MIB };
    const pool = poolState({ memAvailableBytes: 100 * GIB }, [call], settings);
    assert.equal(pool.promisedBytes, 200 * MIB);
    assert.equal(pool.roomBytes, 8 * GIB - 300 * MIB);
  });

  test('takes off what the host must keep', () => {
    const pool = poolState({ memAvailableBytes: 3 * GIB }, [], settings);
    assert.equal(pool.roomBytes, 2 * GIB);
    assert.equal(pool.hostRoomBytes, 2 * GIB);
  });

  test('tells what the host could bear over a budget that is used up', () => {
    const call = { usageBytes: 9 * GIB, highBytes: 9 * GIB, declaredHighBytes: 9 * GIB };
    const pool = poolState({ memAvailableBytes: 3 * GIB }, [call], settings);
    assert.equal(pool.roomBytes, 0);
    assert.equal(pool.hostRoomBytes, 2 * GIB);
  });

  test('does not count page cache that can be taken back', () => {
    const call = { usageBytes: 8 * GIB, reclaimableBytes: 7 * GIB, highBytes: GIB, declaredHighBytes: GIB };
    assert.equal(poolState({ memAvailableBytes: 100 * GIB }, [call], settings).roomBytes, 7 * GIB);
  });

  test('knows calls without limits', () => {
    const call = { usageBytes: GIB, highBytes: Infinity, declaredHighBytes: Infinity };
    assert.equal(poolState({ memAvailableBytes: 100 * GIB }, [call], settings).roomBytes, 7 * GIB);
  });

  const bytes = fc.integer({ min: 0, max: 2 ** 40 });
  const calls: fc.Arbitrary<PoolCall[]> = fc.array(
    fc.record({ usageBytes: bytes, highBytes: bytes, declaredHighBytes: bytes }),
  );

  test('never has less than nothing, nor more than the budget or the host', () => {
    fc.assert(
      fc.property(bytes, calls, bytes, bytes, (memAvailableBytes, list, budgetBytes, keepAvailableBytes) => {
        const pool = poolState({ memAvailableBytes }, list, { budgetBytes, keepAvailableBytes });
        assert.ok(pool.roomBytes >= 0 && pool.roomBytes <= pool.hostRoomBytes);
        assert.ok(
          pool.roomBytes + pool.usedBytes + pool.promisedBytes <= budgetBytes || pool.roomBytes === 0,
        );
        assert.ok(pool.hostRoomBytes <= Math.max(0, memAvailableBytes - keepAvailableBytes));
      }),
    );
  });

  test('has exactly so much less room as is lent', () => {
    const call = { usageBytes: MIB, highBytes: MIB, declaredHighBytes: MIB };
    fc.assert(
      fc.property(fc.integer({ min: 0, max: GIB }), (lentBytes) => {
        const host = { memAvailableBytes: 100 * GIB };
        const before = poolState(host, [call], settings);
        const after = poolState(host, [{ ...call, highBytes: MIB + lentBytes }], settings);
        assert.equal(before.roomBytes - after.roomBytes, lentBytes);
      }),
    );
  });
});

describe('decideAdmission', () => {
  const bounds = { waitMs: 5_000, pressurePercent: 10 };
  const pool = { usedBytes: 0, promisedBytes: 0, roomBytes: GIB, hostRoomBytes: GIB };
  const pressed = { memorySomePercent: 10, poolShort: false };

  test('admits what the pool can hold, whatever the pressure', () => {
    assert.deepEqual(decideAdmission({ needBytes: GIB, waitedMs: 0 }, pool, pressed, 0, bounds), {
      action: 'admit',
      short: false,
    });
  });

  test('admits anything while nobody waits for memory', () => {
    const calm = { memorySomePercent: 9.9, poolShort: false };
    assert.deepEqual(decideAdmission({ needBytes: 2 * GIB, waitedMs: 0 }, pool, calm, 0, bounds), {
      action: 'admit',
      short: false,
    });
  });

  test('lets others wait to their bound and no longer', () => {
    const big = { needBytes: 2 * GIB, waitedMs: 2_000 };
    assert.deepEqual(decideAdmission(big, pool, pressed, 100, bounds), { action: 'wait', untilMs: 3_100 });
    assert.deepEqual(decideAdmission({ ...big, waitedMs: 5_000 }, pool, pressed, 100, bounds), {
      action: 'admit',
      short: true,
    });
  });

  test('lets a call without a limit in while there is any room', () => {
    const any = { needBytes: Infinity, waitedMs: 0 };
    assert.equal(decideAdmission(any, pool, pressed, 0, bounds).action, 'admit');
    assert.equal(decideAdmission(any, { ...pool, roomBytes: 0 }, pressed, 0, bounds).action, 'wait');
  });

  test('never keeps a call beyond the bound, whatever the host', () => {
    const natural = fc.integer({ min: 0, max: 2 ** 40 });
    fc.assert(
      fc.property(natural, natural, natural, fc.integer({ min: 0, max: 100 }), (need, room, now, some) => {
        const state = { ...pool, roomBytes: room };
        for (let waitedMs = 0; ; ) {
          const admission = decideAdmission(
            { needBytes: need, waitedMs },
            state,
            { memorySomePercent: some, poolShort: false },
            now + waitedMs,
            bounds,
          );
          if (admission.action === 'admit') return;
          assert.ok(admission.untilMs > now + waitedMs && admission.untilMs <= now + bounds.waitMs);
          waitedMs = admission.untilMs - now;
        }
      }),
    );
  });
});
