// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mayGrow } from '../../daemon/policy/pool-lines.ts';
import { awakeBytes } from '../../daemon/policy/shortage.ts';
import { standsAt, type TripwireUse, tripwireBytes } from '../../daemon/policy/tripwire.ts';
import { Thrashing } from '../../daemon/toolcall/pool/thrashing.ts';

const MIB = 2 ** 20;
const BUDGET = 1000 * MIB;
const AWAKE = awakeBytes(BUDGET);
/** Half of what is left to the budget. */
const HALF_MIB = 6;

/** Two background calls run, the first of which may go on to 970 MiB. */
const quiet: TripwireUse = {
  budgetBytes: BUDGET,
  lowestLineBytes: 940 * MIB,
  nextLineBytes: 970 * MIB,
  currentBytes: 0,
  hostRoomBytes: 0,
  thrashes: false,
};
const at = (usedMiB: number, use: Partial<TripwireUse> = {}): TripwireUse => ({
  ...quiet,
  currentBytes: usedMiB * MIB,
  ...use,
});
const placeMiB = (use: TripwireUse) => tripwireBytes(use) / MIB;

describe('the tripwire', () => {
  test('is at the lowest line, and near the budget where there is none', () => {
    assert.equal(placeMiB(quiet), 940);
    assert.equal(placeMiB(at(943)), 940);
    assert.equal(tripwireBytes({ ...quiet, lowestLineBytes: Infinity }), AWAKE);
    assert.equal(tripwireBytes({ ...quiet, lowestLineBytes: 995 * MIB }), AWAKE);
  });

  test('follows what is used, a little behind, within the budget or what the host can bear', () => {
    assert.equal(placeMiB(at(960)), 960 - HALF_MIB);
    assert.equal(tripwireBytes(at(1010)), AWAKE);
    assert.equal(placeMiB(at(1010, { hostRoomBytes: 100 * MIB })), 1010 - HALF_MIB);
  });

  test('gives way to those whose text it takes, but not beyond the next line', () => {
    const thrashes = true;
    assert.equal(placeMiB(at(940, { thrashes })), 940 + HALF_MIB);
    assert.equal(placeMiB(at(968, { thrashes })), 970);
    assert.equal(placeMiB(at(970, { thrashes, nextLineBytes: Infinity })), 970 + HALF_MIB);
    assert.equal(tripwireBytes(at(985, { thrashes, nextLineBytes: Infinity })), AWAKE);
    // Nobody's text is taken so far below.
    assert.equal(placeMiB(at(900, { thrashes })), 940);
  });

  test('a line counts of who takes something, or is tried', () => {
    const call = {
      class: 'background',
      leftover: false,
      startedAtMs: 0,
      wantsBytes: 0,
      risenBytes: 0,
      grant: undefined,
      guarantee: undefined,
    } as const;
    assert.ok(!mayGrow(call));
    assert.ok(!mayGrow({ ...call, wantsBytes: MIB / 2, grant: { kind: 'rest' } }));
    assert.ok(mayGrow({ ...call, wantsBytes: MIB }));
    assert.ok(mayGrow({ ...call, wantsBytes: Infinity }));
    assert.ok(mayGrow({ ...call, risenBytes: MIB }));
    assert.ok(mayGrow({ ...call, grant: { kind: 'try', growBytes: 0 } }));
  });

  test('is moved for what makes a difference, and to a line exactly', () => {
    assert.ok(standsAt(941 * MIB, quiet, 940 * MIB));
    assert.ok(!standsAt(942 * MIB, quiet, 940 * MIB));
    assert.ok(!standsAt(941 * MIB, at(940, { thrashes: true }), 940 * MIB));
  });
});

describe('thrashing', () => {
  test('is pages that came back since the last look, and lasts for a second', () => {
    const thrashing = new Thrashing();
    thrashing.look(5000, 0);
    assert.ok(!thrashing.lately(0), 'what came back before the first look is nothing');
    thrashing.look(5031, 10);
    assert.ok(!thrashing.lately(10));
    thrashing.look(5063, 20);
    assert.ok(thrashing.lately(20) && thrashing.lately(1019));
    assert.ok(!thrashing.lately(1020));
    thrashing.look(5100, 1030);
    assert.ok(thrashing.lately(1030));
    thrashing.forget();
    assert.ok(!thrashing.lately(1030));
    thrashing.look(9000, 1040);
    assert.ok(!thrashing.lately(1040));
  });
});
