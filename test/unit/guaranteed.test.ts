// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type Guarantee, guaranteeLeftBytes, guaranteeLines } from '../../daemon/policy/guaranteed.ts';

const MIB = 2 ** 20;
const STEP = 10 * MIB;

/** The lines of sessions in their order, in MiB, in a pool of 1000 of which 940 can be promised. */
function linesOf(guarantees: readonly (Guarantee | undefined)[], usedMiB: number, hostRoomMiB = 0): number[] {
  const use = { usedBytes: usedMiB * MIB, budgetBytes: 1000 * MIB, hostRoomBytes: hostRoomMiB * MIB };
  const lineOf = guaranteeLines(use, STEP, 940 * MIB);
  return guarantees.map((guarantee) => lineOf(guarantee) / MIB);
}

const guarantee = (mib: number, leftMiB: number): Guarantee => ({
  bytes: mib * MIB,
  leftBytes: leftMiB * MIB,
});

describe('what is left of a guarantee', () => {
  const left = (mib: number, heldMiB: number, within: boolean) =>
    guaranteeLeftBytes(mib * MIB, heldMiB * MIB, within) / MIB;

  test('nothing when it is nearly used up, and for who comes back not before it is as far again below', () => {
    assert.deepEqual([left(64, 0, false), left(64, 60, true), left(64, 60.1, true)], [64, 4, 0]);
    assert.deepEqual([left(64, 57, false), left(64, 56, false), left(64, 57, true)], [0, 8, 7]);
    assert.deepEqual([left(64, 64, true), left(64, 500, true), left(64, Infinity, true)], [0, 0, 0]);
  });

  test('of a small one an eighth is nearly nothing', () => {
    assert.deepEqual([left(8, 7, true), left(8, 7.1, true), left(8, 6.1, false)], [1, 0, 0]);
    assert.equal(left(0, 0, true), 0);
  });
});

describe('up to where the pool may be used by who is within its guarantee', () => {
  test('to the last step of the budget, which is for the first in order', () => {
    assert.deepEqual(linesOf([guarantee(64, 40)], 500), [990]);
    assert.deepEqual(linesOf([guarantee(64, 40)], 995), [990]);
    assert.deepEqual(linesOf([guarantee(64, 0), undefined], 500), [0, 0]);
  });

  test('beyond it by what the host has, less what the first needs', () => {
    assert.deepEqual(linesOf([guarantee(64, 40)], 1000, 26), [1010]);
    assert.deepEqual(linesOf([guarantee(64, 40)], 1000, 16), [1000]);
    assert.deepEqual(linesOf([guarantee(64, 40)], 1000, 15), [990]);
  });

  test('but not far beyond what it is guaranteed, whatever the host has', () => {
    assert.deepEqual(linesOf([guarantee(64, 40)], 1000, 5000), [1060]);
    // As it takes what it has left the line stays where it is, and the kernel need not be told.
    assert.deepEqual(linesOf([guarantee(64, 20)], 1020, 4980), [1060]);
  });

  test('what the host has is for one after the other, and one time for all calls of a session', () => {
    const [first, second] = [guarantee(64, 40), guarantee(64, 50)];
    assert.deepEqual(linesOf([first, first, second, second], 1000, 76), [1060, 1060, 1020, 1020]);
  });

  test('those that do not fit into the pool are not kept, from the end of the order', () => {
    const all = [guarantee(600, 0), guarantee(340, 40), guarantee(1, 1), guarantee(64, 40)];
    assert.deepEqual(linesOf(all, 900), [0, 990, 0, 0]);
    assert.deepEqual(linesOf([guarantee(1000, 500), guarantee(64, 40)], 900, 5000), [0, 0]);
  });

  test('whatever is guaranteed, the host keeps what it must and the first in order its step', () => {
    const guarantees = fc.array(
      fc
        .record({ bytes: fc.nat(2000), leftBytes: fc.nat(2000) })
        .map(({ bytes, leftBytes }) => guarantee(bytes, Math.min(bytes, leftBytes))),
    );
    fc.assert(
      fc.property(guarantees, fc.nat(1200), fc.nat(3000), (all, usedMiB, hostRoomMiB) => {
        for (const line of linesOf(all, usedMiB, hostRoomMiB))
          assert.ok(line <= Math.max(990, usedMiB + hostRoomMiB - 16));
      }),
    );
  });
});
