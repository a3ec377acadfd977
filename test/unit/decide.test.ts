// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configSchema } from '../../daemon/config/schema.ts';
import {
  type Decision,
  decideAhead,
  decideFrozen,
  decideGiveBack,
  decideThrottled,
  decideTimeout,
  KILL_CODES,
  outcomeOf,
} from '../../daemon/policy/decide.ts';
import { CHARGE_BYTES, linesFor, PAGE_BYTES } from '../../daemon/policy/lines.ts';
import type { Pool } from '../../daemon/policy/pool.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

// As configured when nothing is: the policy must do well with exactly that.
const settings = configSchema(() => undefined).parse({});

function room(roomBytes: number, hostRoomBytes = roomBytes): Pool {
  return { usedBytes: 0, promisedBytes: 0, roomBytes, hostRoomBytes };
}

const frozen = {
  usageBytes: 66 * MIB,
  tasks: 1,
  highBytes: 64 * MIB,
  declaredMaxBytes: 4 * GIB,
  frozenSinceMs: 1_000,
};

function lent(decision: Decision) {
  assert.ok(decision.action === 'lend', decision.action);
  return decision;
}

describe('decideFrozen', () => {
  test('lends at once while there is room: one part in eight of it, if that is more than the step', () => {
    assert.equal(
      lent(decideFrozen(frozen, room(8 * GIB), 1_000, settings)).lines.memoryHighBytes,
      1090 * MIB,
    );
    assert.equal(
      lent(decideFrozen(frozen, room(256 * MIB), 1_000, settings)).lines.memoryHighBytes,
      130 * MIB,
    );
  });

  test('lends a quarter of a large memory.high', () => {
    const large = { ...frozen, highBytes: 800 * MIB, usageBytes: 816 * MIB };
    assert.equal(
      lent(decideFrozen(large, room(400 * MIB), 1_000, settings)).lines.memoryHighBytes,
      1016 * MIB,
    );
  });

  test('lends what is left when that is less than a step', () => {
    const { lines } = lent(decideFrozen(frozen, room(10 * MIB), 1_000, settings));
    // The freeze line is how far the call can get, so that is what the room must hold.
    assert.equal(lines.freezeLineBytes, 76 * MIB);
    assert.equal(lines.memoryHighBytes, 74.5078125 * MIB);
  });

  test('says what it lends and why', () => {
    const { reason } = lent(decideFrozen(frozen, room(10 * MIB), 1_000, settings));
    assert.equal(reason, 'memory.high 64 MiB to 74.5 MiB: room in the pool');
  });

  test('waits for room, to the deadline of this freeze', () => {
    assert.deepEqual(decideFrozen(frozen, room(0), 1_500, settings), {
      action: 'wait',
      untilMs: 11_000,
      reason: 'no room in the pool',
    });
  });

  test('does not count room that is too small for its tasks to charge', () => {
    const many = { ...frozen, tasks: 100 };
    assert.equal(decideFrozen(many, room(26 * MIB), 1_500, settings).action, 'wait');
    assert.equal(decideFrozen(many, room(27 * MIB), 1_500, settings).action, 'lend');
  });

  test('lends the least over the budget at the deadline, if the host can bear it', () => {
    const { lines, reason } = lent(decideFrozen(frozen, room(0, GIB), 11_000, settings));
    assert.equal(lines.memoryHighBytes, 70 * MIB);
    assert.match(reason, /over the budget/);
  });

  test('kills at the deadline if the host has nothing left', () => {
    assert.deepEqual(decideFrozen(frozen, room(0), 11_000, settings), {
      action: 'kill',
      code: 'host-memory',
      reason: 'host memory short, frozen for 10 s',
    });
  });

  test('does not kill while another call that was killed still gives its memory back', () => {
    const decision = decideFrozen({ ...frozen, killPending: true }, room(0), 11_000, settings);
    assert.equal(decision.action, 'wait');
  });

  test('lends before the deadline to a call whose lock another waits for', () => {
    const holder = { ...frozen, blocksOthers: true };
    assert.equal(lent(decideFrozen(holder, room(0, GIB), 1_000, settings)).lines.memoryHighBytes, 70 * MIB);
    assert.equal(decideFrozen(holder, room(0), 1_000, settings).action, 'wait');
    assert.equal(decideFrozen(holder, room(0), 11_000, settings).action, 'kill');
  });

  test('gives a call all of its memory.max, without a throttle, before that can kill it', () => {
    const near = { ...frozen, declaredMaxBytes: 128 * MIB, usageBytes: 120 * MIB, highBytes: 118 * MIB };
    assert.deepEqual(lent(decideFrozen(near, room(GIB), 1_000, settings)).lines, {
      memoryHighBytes: 128 * MIB,
      freezeLineBytes: 128 * MIB,
      memoryMaxBytes: 128 * MIB,
    });
  });

  test('does not give it all if the pool cannot hold that', () => {
    const near = { ...frozen, declaredMaxBytes: 128 * MIB, usageBytes: 120 * MIB, highBytes: 118 * MIB };
    const { lines } = lent(decideFrozen(near, room(7 * MIB), 1_000, settings));
    assert.equal(lines.freezeLineBytes, 127 * MIB);
    assert.equal(lent(decideFrozen(near, room(8 * MIB), 1_000, settings)).lines.memoryHighBytes, 128 * MIB);
  });

  test('lends at least what its tasks charge ahead, if that is more than a step', () => {
    const many = { ...frozen, tasks: 400 };
    assert.equal(lent(decideFrozen(many, room(256 * MIB), 1_000, settings)).lines.memoryHighBytes, 166 * MIB);
  });

  test('brings a call from 64 MiB to 2 GiB in few freezes, each of which gets it further', () => {
    for (const [roomBytes, most] of [
      [16 * GIB, 2],
      [3 * GIB, 7],
    ] as const) {
      let call = { ...frozen };
      let freezes = 0;
      while (call.usageBytes < 2 * GIB) {
        const { lines } = lent(decideFrozen(call, room(roomBytes - call.usageBytes), 1_000, settings));
        assert.ok(lines.freezeLineBytes > call.usageBytes);
        call = { ...call, usageBytes: lines.freezeLineBytes, highBytes: lines.memoryHighBytes };
        freezes += 1;
      }
      assert.ok(freezes <= most, `${freezes} freezes`);
    }
  });

  const calls = fc
    .record({
      highBytes: fc.integer({ min: MIB, max: 2 ** 38 }),
      over: fc.double({ min: 0.5, max: 1.2, noNaN: true }),
      spareBytes: fc.oneof(fc.integer({ min: 0, max: 2 ** 38 }), fc.constant(Infinity)),
      tasks: fc.integer({ min: 0, max: 10_000 }),
      blocksOthers: fc.boolean(),
      killPending: fc.boolean(),
      frozenSinceMs: fc.integer({ min: 0, max: 1e9 }),
    })
    .map(({ highBytes, over, spareBytes, ...rest }) => ({
      ...rest,
      highBytes,
      declaredMaxBytes: highBytes + spareBytes,
      usageBytes: Math.min(Math.floor(highBytes * over), highBytes + spareBytes),
    }));
  const pools = fc
    .tuple(fc.integer({ min: 0, max: 2 ** 38 }), fc.integer({ min: 0, max: 2 ** 38 }))
    .map(([a, b]) => room(Math.min(a, b), Math.max(a, b)));

  test('lends only what there is, and always enough to be of use', () => {
    fc.assert(
      fc.property(calls, pools, fc.integer({ min: 0, max: 60_000 }), (call, pool, waitedMs) => {
        const decision = decideFrozen(call, pool, call.frozenSinceMs + waitedMs, settings);
        if (decision.action !== 'lend') return;
        const { memoryHighBytes, freezeLineBytes, memoryMaxBytes } = decision.lines;
        assert.ok(memoryHighBytes <= freezeLineBytes && freezeLineBytes <= memoryMaxBytes);
        assert.ok(memoryMaxBytes <= call.declaredMaxBytes);
        // The line is how far the call can grow. Lines that it already has are not taken from it.
        const kept = call.highBytes * 1.02 + CHARGE_BYTES;
        assert.ok(freezeLineBytes <= Math.max(kept, call.usageBytes + pool.hostRoomBytes) + 2 * PAGE_BYTES);
        const useful = call.usageBytes + Math.max(4 * MIB, Math.max(1, call.tasks) * CHARGE_BYTES);
        assert.ok(freezeLineBytes >= Math.min(useful, call.declaredMaxBytes));
      }),
    );
  });

  test('decides for good no later than the deadline, but for the memory of another that is on its way', () => {
    fc.assert(
      fc.property(calls, pools, fc.integer({ min: 0, max: 60_000 }), (call, pool, waitedMs) => {
        const nowMs = call.frozenSinceMs + waitedMs;
        const decision = decideFrozen(call, pool, nowMs, settings);
        if (decision.action === 'kill') {
          assert.ok(waitedMs >= 10_000);
          assert.ok(!call.killPending);
        } else if (decision.action === 'wait') {
          assert.ok(decision.untilMs > nowMs);
          assert.ok(call.killPending || decision.untilMs === call.frozenSinceMs + 10_000);
        } else {
          assert.equal(decision.action, 'lend');
        }
      }),
    );
  });

  test('never kills while the host has room for the least loan', () => {
    fc.assert(
      fc.property(calls, fc.integer({ min: 0, max: 2 ** 38 }), (call, spareBytes) => {
        const leastBytes = Math.max(4 * MIB, Math.max(1, call.tasks) * CHARGE_BYTES);
        const lineBytes = (call.usageBytes + leastBytes) * 1.02 + CHARGE_BYTES + 2 * PAGE_BYTES;
        const pool = room(0, lineBytes - call.usageBytes + spareBytes);
        const decision = decideFrozen(call, pool, call.frozenSinceMs + 1e9, settings);
        assert.equal(decision.action, 'lend');
      }),
    );
  });
});

describe('decideThrottled', () => {
  const throttled = {
    usageBytes: 64 * MIB,
    tasks: 1,
    highBytes: 64 * MIB,
    declaredMaxBytes: 4 * GIB,
    throttledSinceMs: 0,
    pressureFullPercent: 100,
    userCpuPercent: 0,
  };

  test('leaves a call alone before its deadline', () => {
    assert.equal(decideThrottled(throttled, room(GIB), 4_999, settings).action, 'keep');
  });

  test('lends at the deadline if pressure slows the call', () => {
    assert.equal(decideThrottled(throttled, room(GIB), 5_000, settings).action, 'lend');
    const reader = { ...throttled, pressureFullPercent: 19 };
    assert.equal(decideThrottled(reader, room(GIB), 1e9, settings).action, 'keep');
  });

  test('lends over the budget after as long again as a freeze may last', () => {
    assert.equal(decideThrottled(throttled, room(0, GIB), 14_999, settings).action, 'keep');
    const { lines, reason } = lent(decideThrottled(throttled, room(0, 6 * MIB), 15_000, settings));
    assert.equal(lines.memoryHighBytes, 68 * MIB);
    assert.match(reason, /over the budget/);
    assert.equal(decideThrottled(throttled, room(0, 5 * MIB), 15_000, settings).action, 'keep');
  });

  test('kills a call that is stuck and cannot be lent to, saying which memory was short', () => {
    assert.equal(decideThrottled(throttled, room(0), 59_999, settings).action, 'keep');
    assert.deepEqual(decideThrottled(throttled, room(0), 60_000, settings), {
      action: 'kill',
      code: 'host-memory',
      reason: 'host memory short, no progress for 1 min',
    });
    const full = { ...throttled, highBytes: 128 * MIB, declaredMaxBytes: 128 * MIB };
    assert.deepEqual(decideThrottled(full, room(GIB), 60_000, settings), {
      action: 'kill',
      code: 'memory-max',
      reason: 'needs more than its memory.max, no progress for 1 min',
    });
  });

  test('never kills a call that computes, or that waits for memory only part of the time', () => {
    const full = { ...throttled, highBytes: 128 * MIB, declaredMaxBytes: 128 * MIB };
    for (const slow of [{ userCpuPercent: 5 }, { pressureFullPercent: 89 }]) {
      assert.equal(decideThrottled({ ...full, ...slow }, room(0), 1e9, settings).action, 'keep');
      assert.equal(decideThrottled({ ...throttled, ...slow }, room(0), 1e9, settings).action, 'keep');
    }
  });
});

describe('decideAhead', () => {
  const call = {
    usageBytes: 900 * MIB,
    tasks: 1,
    highBytes: GIB,
    grownBytes: 50 * MIB,
    declaredMaxBytes: 4 * GIB,
  };

  test('lends before a growing call meets its memory.high', () => {
    assert.equal(lent(decideAhead(call, room(GIB), settings)).lines.memoryHighBytes, 1156 * MIB);
    assert.equal(decideAhead({ ...call, grownBytes: 41 * MIB }, room(GIB), settings).action, 'keep');
  });

  test('not to one that holds still, and not the last of the room', () => {
    for (const grownBytes of [0, -50 * MIB]) {
      assert.equal(decideAhead({ ...call, grownBytes }, room(GIB), settings).action, 'keep');
    }
    assert.equal(lent(decideAhead(call, room(512 * MIB), settings)).lines.memoryHighBytes, 1156 * MIB);
    assert.equal(decideAhead(call, room(511 * MIB), settings).action, 'keep');
  });

  test('nothing that would not raise memory.high', () => {
    const fast = { ...call, usageBytes: 700 * MIB, grownBytes: 200 * MIB };
    assert.equal(decideAhead(fast, room(600 * MIB), settings).action, 'keep');
    const whole = { ...call, declaredMaxBytes: GIB };
    assert.equal(decideAhead(whole, room(GIB), settings).action, 'keep');
  });
});

describe('decideGiveBack', () => {
  const call = {
    usageBytes: 20 * MIB,
    tasks: 1,
    highBytes: 500 * MIB,
    declaredMaxBytes: GIB,
    grownBytes: 0,
    declaredHighBytes: 64 * MIB,
    lastPressedMs: 1_000,
  };

  test('waits until the burst is over', () => {
    assert.equal(decideGiveBack(call, room(GIB), 3_999, settings), null);
    assert.equal(decideGiveBack(call, room(GIB), 4_000, settings)?.memoryHighBytes, 282 * MIB);
  });

  test('leaves what a growing call is about to use', () => {
    const growing = { ...call, usageBytes: 200 * MIB, grownBytes: 50 * MIB };
    // Halfway to 5 % over what it uses three looks later.
    assert.equal(decideGiveBack(growing, room(GIB), 4_000, settings)?.memoryHighBytes, 433.75 * MIB);
    assert.equal(decideGiveBack({ ...growing, grownBytes: 92 * MIB }, room(GIB), 4_000, settings), null);
  });

  test('does not undo what a loan has just given, however it was used', () => {
    const usage = fc.integer({ min: MIB, max: GIB });
    fc.assert(
      fc.property(usage, fc.integer({ min: 32 * MIB, max: GIB }), (usageBytes, roomBytes) => {
        const held = { usageBytes, tasks: 1, highBytes: usageBytes, declaredMaxBytes: 4 * GIB };
        const loan = decideFrozen({ ...held, frozenSinceMs: 0 }, room(roomBytes), 0, settings);
        const { memoryHighBytes } = lent(loan).lines;
        const grown = { ...held, usageBytes: Math.ceil(memoryHighBytes / 1.05), highBytes: memoryHighBytes };
        const later = { ...grown, grownBytes: 0, declaredHighBytes: MIB, lastPressedMs: 0 };
        assert.equal(decideGiveBack(later, room(roomBytes), 1e9, settings), null);
      }),
    );
  });
});

describe('decideTimeout', () => {
  const call = { startedAtMs: 1_000, timeoutMs: 5_000, frozenMs: 0 };

  test('is due when the time is up', () => {
    assert.deepEqual(decideTimeout(call, 1_000), { due: false, leftMs: 5_000 });
    assert.deepEqual(decideTimeout(call, 5_999), { due: false, leftMs: 1 });
    assert.deepEqual(decideTimeout(call, 6_000), { due: true, leftMs: 0 });
    assert.deepEqual(decideTimeout(call, 9_000), { due: true, leftMs: 0 });
  });

  test('does not count time frozen', () => {
    assert.deepEqual(decideTimeout({ ...call, frozenMs: 4_000 }, 9_000), { due: false, leftMs: 1_000 });
  });
});

describe('outcomeOf', () => {
  const cases = [
    [null, 0, 'ok'],
    [null, 2, 'oom'],
    ['leftover', 0, 'ok'],
    ['leftover', 1, 'oom'],
    ['timeout', 0, 'timeout'],
    ['timeout', 1, 'timeout'],
    ['wrapper-lost', 0, 'lost'],
    ['memory-max', 0, 'killed'],
    ['host-memory', 1, 'killed'],
    ['session-end', 0, 'killed'],
    ['operator', 0, 'killed'],
  ] as const;
  for (const [killCode, oomKills, outcome] of cases) {
    test(`${killCode} with ${oomKills} OOM kills is ${outcome}`, () => {
      assert.equal(outcomeOf({ killCode, oomKills }), outcome);
    });
  }

  test('knows every kill code', () => {
    const known = new Set(cases.map(([killCode]) => killCode).filter((code) => code !== null));
    assert.deepEqual([...known].sort(), [...KILL_CODES].sort());
  });
});

describe('lines and decisions together', () => {
  test('a runaway ends at its declared maximum, in bounded steps, with room to spare', () => {
    fc.assert(
      fc.property(fc.integer({ min: MIB, max: 2 ** 36 }), fc.integer({ min: 1, max: 64 }), (max, tasks) => {
        const declaredMaxBytes = Math.floor(max / 4096) * 4096;
        let lines = linesFor({ highBytes: declaredMaxBytes / 100, declaredMaxBytes, freezeLinePercent: 2 });
        let steps = 0;
        while (lines.freezeLineBytes < declaredMaxBytes) {
          const held = { usageBytes: lines.freezeLineBytes, tasks, highBytes: lines.memoryHighBytes };
          const decision = decideFrozen(
            { ...held, declaredMaxBytes, frozenSinceMs: 0 },
            room(2 * declaredMaxBytes),
            0,
            settings,
          );
          lines = lent(decision).lines;
          steps += 1;
        }
        assert.ok(steps <= 8, `${steps} steps`);
        assert.equal(lines.memoryMaxBytes, declaredMaxBytes);
      }),
    );
  });
});
