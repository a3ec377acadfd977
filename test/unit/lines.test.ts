// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CHARGE_BYTES, givenBack, linesFor, marginBytes, PAGE_BYTES } from '../../daemon/policy/lines.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

describe('linesFor', () => {
  test('puts the freeze line the given share above memory.high and the fence at the declared maximum', () => {
    assert.deepEqual(linesFor({ highBytes: 100 * MIB, declaredMaxBytes: GIB, freezeLinePercent: 2 }), {
      memoryHighBytes: 100 * MIB,
      freezeLineBytes: 102 * MIB,
      memoryMaxBytes: GIB,
    });
  });

  test('keeps the fence at the margin of its tasks when the pool has no room', () => {
    const lines = linesFor({
      highBytes: 100 * MIB,
      declaredMaxBytes: GIB,
      freezeLinePercent: 2,
      tasks: 40,
      roomBytes: 0,
    });
    assert.equal(lines.memoryMaxBytes, 102 * MIB + 40 * CHARGE_BYTES);
  });

  test('puts the freeze line of a small call one charge above memory.high', () => {
    const lines = linesFor({ highBytes: 2 * MIB, declaredMaxBytes: GIB, freezeLinePercent: 2 });
    assert.equal(lines.freezeLineBytes, 2 * MIB + CHARGE_BYTES);
  });

  test('puts a freeze line that would be over the maximum on it', () => {
    assert.deepEqual(linesFor({ highBytes: 127 * MIB, declaredMaxBytes: 128 * MIB, freezeLinePercent: 2 }), {
      memoryHighBytes: 127 * MIB,
      freezeLineBytes: 128 * MIB,
      memoryMaxBytes: 128 * MIB,
    });
  });

  test('is all max for a call without limits', () => {
    assert.deepEqual(linesFor({ highBytes: Infinity, declaredMaxBytes: Infinity, freezeLinePercent: 2 }), {
      memoryHighBytes: Infinity,
      freezeLineBytes: Infinity,
      memoryMaxBytes: Infinity,
    });
  });

  test('keeps high, line and max in order, the margin between the last two, and never passes the maximum', () => {
    const inputs = fc.record({
      highBytes: fc.integer({ min: 1, max: 2 ** 42 }),
      declaredMaxBytes: fc.oneof(fc.integer({ min: 1, max: 2 ** 42 }), fc.constant(Infinity)),
      freezeLinePercent: fc.double({ min: 1.25, max: 17, noNaN: true }),
      tasks: fc.integer({ min: 0, max: 100_000 }),
      roomBytes: fc.oneof(fc.integer({ min: 0, max: 2 ** 42 }), fc.constant(Infinity)),
    });
    fc.assert(
      fc.property(inputs, (input) => {
        const { memoryHighBytes, freezeLineBytes, memoryMaxBytes } = linesFor(input);
        assert.ok(memoryHighBytes <= freezeLineBytes && freezeLineBytes <= memoryMaxBytes);
        assert.ok(memoryMaxBytes <= input.declaredMaxBytes);
        assert.ok(memoryHighBytes === Math.min(input.highBytes, input.declaredMaxBytes));
        const margin = Math.max(marginBytes(input.tasks), Math.min(input.roomBytes, 2 ** 43));
        assert.ok(memoryMaxBytes >= Math.min(freezeLineBytes + margin, input.declaredMaxBytes));
        assert.ok(freezeLineBytes >= Math.min(memoryHighBytes + CHARGE_BYTES, input.declaredMaxBytes));
        for (const bytes of [freezeLineBytes, memoryMaxBytes]) {
          assert.ok(bytes % PAGE_BYTES === 0 || bytes === input.declaredMaxBytes || bytes === Infinity);
        }
      }),
    );
  });
});

describe('givenBack', () => {
  const lent = { declaredHighBytes: 64 * MIB, declaredMaxBytes: GIB, freezeLinePercent: 2, tasks: 1 };

  test('gives back half of what is lent and not used', () => {
    const lines = givenBack({ ...lent, highBytes: 464 * MIB, usageBytes: 10 * MIB });
    assert.equal(lines?.memoryHighBytes, 264 * MIB);
  });

  test('gives the last bit back at once', () => {
    const lines = givenBack({ ...lent, highBytes: 70 * MIB, usageBytes: 10 * MIB });
    assert.equal(lines?.memoryHighBytes, 64 * MIB);
  });

  test('gives nothing back of what is used, or too little to matter', () => {
    assert.equal(givenBack({ ...lent, highBytes: 464 * MIB, usageBytes: 450 * MIB }), null);
    assert.equal(givenBack({ ...lent, highBytes: 67 * MIB, usageBytes: 10 * MIB }), null);
    assert.equal(givenBack({ ...lent, highBytes: 64 * MIB, usageBytes: 10 * MIB }), null);
  });

  test('leaves a call without limits alone', () => {
    const unlimited = { ...lent, declaredHighBytes: Infinity, declaredMaxBytes: Infinity };
    assert.equal(givenBack({ ...unlimited, highBytes: Infinity, usageBytes: 0 }), null);
  });

  const inputs = fc
    .record({
      declaredHighBytes: fc.integer({ min: MIB, max: 2 ** 36 }),
      lentBytes: fc.integer({ min: 0, max: 2 ** 36 }),
      usageShare: fc.double({ min: 0, max: 1.02, noNaN: true }),
      spareBytes: fc.integer({ min: 0, max: 2 ** 36 }),
      tasks: fc.integer({ min: 0, max: 10_000 }),
      roomBytes: fc.integer({ min: 0, max: 2 ** 36 }),
    })
    .map(({ declaredHighBytes, lentBytes, usageShare, spareBytes, tasks, roomBytes }) => ({
      declaredHighBytes,
      highBytes: declaredHighBytes + lentBytes,
      declaredMaxBytes: declaredHighBytes + lentBytes + spareBytes,
      usageBytes: Math.floor((declaredHighBytes + lentBytes) * usageShare),
      freezeLinePercent: 2,
      tasks,
      roomBytes,
    }));

  test('lowers memory.high, never below the declared one nor usage + 5 %, memory.max never below usage + margin', () => {
    fc.assert(
      fc.property(inputs, (input) => {
        const lines = givenBack(input);
        if (lines === null) return;
        assert.ok(lines.memoryHighBytes < input.highBytes);
        assert.ok(lines.memoryHighBytes >= input.declaredHighBytes);
        assert.ok(lines.memoryHighBytes >= input.usageBytes * 1.05);
        const margin = input.usageBytes + marginBytes(input.tasks);
        assert.ok(lines.memoryMaxBytes >= Math.min(margin, input.declaredMaxBytes));
      }),
    );
  });

  test('comes to an end within forty steps, near the declared memory.high or the usage', () => {
    fc.assert(
      fc.property(inputs, (input) => {
        let highBytes = input.highBytes;
        for (let steps = 0; ; steps++) {
          assert.ok(steps <= 40);
          const lines = givenBack({ ...input, highBytes });
          if (lines === null) break;
          highBytes = lines.memoryHighBytes;
        }
        const goal = Math.max(input.declaredHighBytes, input.usageBytes * 1.05);
        assert.ok(highBytes < goal + 4 * MIB + PAGE_BYTES || highBytes === input.highBytes);
      }),
    );
  });
});
