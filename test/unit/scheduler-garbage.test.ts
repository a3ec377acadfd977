// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { TURN_CLASSES, type Turn } from '../../daemon/scheduler/types.ts';
import { SchedulerLab, type Told } from '../lib/scheduler.ts';

setFlagsFromString('--expose-gc');
// Else V8 may make old at once what is made where much of the like has survived a collection.
setFlagsFromString('--no-allocation-site-pretenuring');
const collect = runInNewContext('gc') as (options: { type: 'minor' }) => void;

const AT_ONCE = 10;
const TURNS = 4_000;
/** No turn lives to see two of them, so none of it has a reason to grow old. */
const COLLECT_EACH = 20;

/** What outlived two collections of the young generation. */
const oldBytes = () =>
  getHeapSpaceStatistics()
    .filter(({ space_name: name }) => name === 'old_space')
    .reduce((sum, { space_used_size: bytes }) => sum + bytes, 0);

const cases: [string, SchedulerLab, (at: number) => Partial<Turn>, endsRun?: true][] = [
  ['of one long run', new SchedulerLab({ lanes: { start: AT_ONCE / 2 } }), () => ({})],
  [
    'that is a run of its own',
    new SchedulerLab({ lanes: { start: AT_ONCE / 2 } }),
    (at) => ({ session: `s${at % AT_ONCE}`, class: TURN_CLASSES[at % 3] ?? 'background' }),
    true,
  ],
  [
    'whose agent waits for others to end',
    new SchedulerLab({ agents: { running: AT_ONCE / 2 } }),
    (at) => ({ session: `s${at % AT_ONCE}` }),
    true,
  ],
];

for (const [name, lab, changes, endsRun] of cases) {
  test(`nothing of a turn ${name} outlives it, without a full collection`, () => {
    const live: Told[] = [];
    const run = (turns: number): void => {
      for (let at = 0; at < turns; at += 1) {
        live.push(lab.submit(changes(at)));
        if (live.length > AT_ONCE) {
          const [over] = live.splice(
            live.findIndex(({ leases }) => leases.length > 0),
            1,
          );
          over?.leases[0]?.end({ kind: 'ok', ...(endsRun && { endsRun }) });
        }
        lab.granted.length = 0;
        if (at % COLLECT_EACH === 0) collect({ type: 'minor' });
      }
    };
    // What V8 makes of code that it sees often is old as well.
    run(TURNS);
    const before = oldBytes();
    run(TURNS);
    const bytesPerTurn = (oldBytes() - before) / TURNS;
    // 30 bytes as it is; with a Set of the states of all turns, or of those that wait for an agent, it was 900.
    assert.ok(bytesPerTurn < 150, `${bytesPerTurn.toFixed(0)} bytes of each turn`);
  });
}
