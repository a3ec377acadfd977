// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { SchedulerLab, type Told } from '../lib/scheduler.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as (options: { type: 'minor' }) => void;

const AT_ONCE = 16;
const TURNS = 4_000;
/** No turn lives to see two of them, so none of it has a reason to grow old. */
const COLLECT_EACH = 20;

/** What outlived two collections of the young generation. */
const oldBytes = () =>
  getHeapSpaceStatistics()
    .filter(({ space_name: name }) => name === 'old_space')
    .reduce((sum, { space_used_size: bytes }) => sum + bytes, 0);

test('nothing of a turn that is over outlives it, without a full collection', () => {
  const lab = new SchedulerLab({ lanes: { start: AT_ONCE / 2 } });
  const live: Told[] = [];
  const run = (turns: number): void => {
    for (let at = 0; at < turns; at += 1) {
      live.push(lab.submit());
      if (live.length > AT_ONCE) live.shift()?.leases[0]?.end({ kind: 'ok' });
      lab.granted.length = 0;
      if (at % COLLECT_EACH === 0) collect({ type: 'minor' });
    }
  };
  // What V8 makes of code that it sees often is old as well.
  run(TURNS);
  const before = oldBytes();
  run(TURNS);
  const bytesPerTurn = (oldBytes() - before) / TURNS;
  // 25 bytes as it is; with a Set of the states of all turns it was 4 KB.
  assert.ok(bytesPerTurn < 300, `${bytesPerTurn.toFixed(0)} bytes of each turn`);
});
