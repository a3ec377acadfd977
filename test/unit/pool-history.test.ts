// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Growth, PoolHistory } from '../../daemon/toolcall/pool/history.ts';

const MIB = 2 ** 20;
const LEAST_FREEZE_MS = 50;

class SomeCall {
  frozenSinceMs: number | undefined;
  frozenFor: 'line' | 'pool' | undefined;
  usageBytes = 0;
  pageCacheBytes = 0;
  readonly cgroup = { heldBytes: () => this.usageBytes - this.pageCacheBytes };

  freeze(atMs: number): void {
    this.frozenSinceMs = atMs;
    this.frozenFor = 'pool';
  }

  thaw(): void {
    this.frozenSinceMs = undefined;
    this.frozenFor = undefined;
  }
}

function look(history: PoolHistory, call: SomeCall, usageBytes: number, atMs: number): Growth {
  call.usageBytes = usageBytes;
  return history.look(call, usageBytes, atMs);
}

test('one look says neither what a call usually holds nor what it takes: it may want anything', () => {
  const history = new PoolHistory();
  const call = new SomeCall();
  assert.equal(history.risenBytes(call), Infinity);
  assert.deepEqual(look(history, call, 100 * MIB, 1000), { grownBytes: 0, grewAtMs: 0 });
  assert.equal(history.risenBytes(call), Infinity);
  look(history, call, 100 * MIB, 1010);
  assert.equal(history.risenBytes(call), 0);
  assert.equal(history.wantsBytes(call), 0);
});

test('what it takes is growth, and more than it usually holds; page cache is neither', () => {
  const history = new PoolHistory();
  const call = new SomeCall();
  look(history, call, 100 * MIB, 1000);
  call.pageCacheBytes = 50 * MIB;
  assert.equal(look(history, call, 150 * MIB, 1010).grownBytes, 0);
  assert.equal(history.risenBytes(call), 0);
  assert.deepEqual(look(history, call, 152 * MIB, 1020), { grownBytes: 2 * MIB, grewAtMs: 1020 });
  assert.ok(history.risenBytes(call) > 1.9 * MIB && history.risenBytes(call) <= 2 * MIB);
  assert.equal(history.wantsBytes(call), 2 * MIB);
  assert.equal(history.heldBytes(call), 102 * MIB);
});

test('usage of a moment before its page cache was reclaimed is no growth', () => {
  const history = new PoolHistory();
  const call = new SomeCall();
  call.pageCacheBytes = 10 * MIB;
  look(history, call, 100 * MIB, 1000);
  look(history, call, 100 * MIB, 1010);
  // Read before; what it holds was read after.
  const usageBytes = 101 * MIB;
  call.usageBytes = 96 * MIB;
  call.pageCacheBytes = 6 * MIB;
  assert.deepEqual(history.look(call, usageBytes, 1020), { grownBytes: 0, grewAtMs: 0 });
  assert.equal(history.risenBytes(call), 0);
});

test('a frozen call does not grow, and once it goes on it is as one not seen before', () => {
  const history = new PoolHistory();
  const call = new SomeCall();
  look(history, call, 100 * MIB, 1000);
  look(history, call, 104 * MIB, 1010);
  call.freeze(1010);
  const { frozenSinceMs, ms } = history.patience(call, LEAST_FREEZE_MS);
  assert.deepEqual({ frozenSinceMs, ms }, { frozenSinceMs: 1010, ms: LEAST_FREEZE_MS });
  assert.deepEqual(look(history, call, 104 * MIB, 1020), { grownBytes: 0, grewAtMs: 1010 });
  assert.equal(history.wantsBytes(call), Infinity);
  assert.equal(history.risenBytes(call), Infinity);

  call.thaw();
  history.goesOn(call, 1060);
  assert.equal(history.heldBytes(call), undefined);
  assert.deepEqual(look(history, call, 104 * MIB, 1070), { grownBytes: 0, grewAtMs: 0 });
  assert.equal(history.risenBytes(call), Infinity);
  // Soon stopped again: it is tried half as often.
  call.freeze(1080);
  assert.equal(history.patience(call, LEAST_FREEZE_MS).ms, 2 * LEAST_FREEZE_MS);
});
