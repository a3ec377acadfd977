// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { LeveledQueue } from '../../daemon/scheduler/leveled-queue.ts';
import { LEVELS, type Level, type QueueEntry } from '../../daemon/scheduler/queue.ts';
import { defaultSettings } from '../../daemon/scheduler/settings.ts';
import { turn } from '../lib/scheduler.ts';

const { levels } = defaultSettings;
let sequence = 0;

function entry(level: Level, changes: Partial<QueueEntry> & { session?: string } = {}): QueueEntry {
  const { session = 's1', ...rest } = changes;
  sequence += 1;
  return { turn: turn({ session }), level, sinceMs: 0, sequence, retry: false, ...rest };
}

function queueOf(ranks: Record<string, number> = {}) {
  const queue = new LeveledQueue(levels, (session) => ranks[session] ?? 0);
  const take = (nowMs = 0, mayGo: (level: Level) => boolean = () => true) => {
    const choice = queue.next(nowMs, mayGo);
    if (choice !== undefined) queue.take(choice, nowMs);
    return choice;
  };
  const push = (...entries: readonly QueueEntry[]) => {
    for (const one of entries) queue.push(one);
  };
  return { queue, take, push };
}

const levelsOf = (count: number, take: () => { entry: QueueEntry } | undefined) =>
  Array.from({ length: count }, () => take()?.entry.level);

describe('LeveledQueue', () => {
  test('levels with turns waiting share the lanes 8 : 3 : 1', () => {
    const { take, push } = queueOf();
    for (let n = 0; n < 1_200; n += 1) push(...LEVELS.map((level) => entry(level)));
    const served = levelsOf(1_200, take);
    assert.deepEqual(
      LEVELS.map((level) => served.filter((one) => one === level).length),
      [800, 300, 100],
    );
    // And not in blocks: of any twelve in a row each level has about its share.
    for (let at = 0; at + 12 <= served.length; at += 1) {
      const interactive = served.slice(at, at + 12).filter((one) => one === 0).length;
      assert.ok(interactive >= 7 && interactive <= 9, `${interactive} of 12 at ${at}`);
    }
  });

  test('a level that had nothing to do is not owed the time', () => {
    const { take, push } = queueOf();
    for (let n = 0; n < 100; n += 1) push(entry(0));
    for (let n = 0; n < 100; n += 1) take();
    for (let n = 0; n < 40; n += 1) push(entry(0), entry(2));
    const first = levelsOf(9, take);
    assert.ok(first.filter((level) => level === 2).length <= 2, `${first}`);
  });

  test('a background turn that comes does not go before users who wait', () => {
    const { take, push } = queueOf();
    push(...Array.from({ length: 10 }, () => entry(0)));
    take();
    push(entry(2), entry(1));
    assert.deepEqual(levelsOf(8, take), [0, 1, 0, 0, 0, 0, 0, 0]);
  });

  test('alone, a level has all lanes, in the order of arrival', () => {
    const { take, push } = queueOf();
    const turns = Array.from({ length: 5 }, (_, n) => entry(2, { sinceMs: n }));
    push(...turns.toReversed());
    assert.deepEqual(
      Array.from(turns, () => take()?.entry),
      turns,
    );
  });

  test('in a level the session with the smaller share goes first, whoever came first', () => {
    const ranks: Record<string, number> = { greedy: 10, modest: 2 };
    const { queue, take, push } = queueOf(ranks);
    const greedy = [entry(0, { session: 'greedy' }), entry(0, { session: 'greedy' })];
    const modest = [entry(0, { session: 'modest', sinceMs: 5 }), entry(0, { session: 'modest', sinceMs: 6 })];
    push(...greedy, ...modest);
    assert.equal(take()?.entry, modest[0]);
    ranks.modest = 11;
    queue.used('modest');
    assert.equal(take()?.entry, greedy[0]);
    ranks.greedy = 12;
    queue.rekey();
    assert.equal(take()?.entry, modest[1]);
  });

  test('a retry goes before all of its level, and before none of a better one', () => {
    const { take, push } = queueOf({ s1: 0, greedy: 9 });
    const retry = entry(1, { session: 'greedy', sinceMs: 50, retry: true });
    const better = entry(0);
    push(entry(1), retry, better);
    assert.deepEqual([take()?.entry, take()?.entry], [better, retry]);
  });

  test('levels that may not go are passed over', () => {
    const { take, push } = queueOf();
    const background = entry(2);
    push(background);
    assert.equal(
      take(0, (level) => level < 2),
      undefined,
    );
    assert.equal(take()?.entry, background);
  });

  test('a level that might not go for long does not make up for it', () => {
    const { take, push } = queueOf();
    for (let n = 0; n < 300; n += 1) push(entry(0), entry(2));
    for (let n = 0; n < 200; n += 1) take(0, (level) => level < 2);
    const served = levelsOf(36, take);
    const background = served.filter((level) => level === 2).length;
    assert.ok(background >= 3 && background <= 5, `${served}`);
  });

  test('who has waited 300 s goes next, of every four dispatches one', () => {
    const { take, push } = queueOf();
    for (let n = 0; n < 20; n += 1) push(entry(2, { sinceMs: n }));
    for (let n = 0; n < 20; n += 1) push(entry(0, { sinceMs: 299_000 }));
    const aged = Array.from({ length: 13 }, () => take(301_000)?.aged);
    assert.deepEqual(aged, [
      true,
      false,
      false,
      false,
      true,
      false,
      false,
      false,
      true,
      false,
      false,
      false,
      true,
    ]);
  });

  test("a session's own storm makes its turns no more urgent than those of others", () => {
    const { take, push } = queueOf({ storm: 5 });
    for (let n = 0; n < 100; n += 1) push(entry(0, { session: 'storm' }));
    for (let n = 0; n < 100; n += 1) push(entry(0, { session: `s${n % 9}`, sinceMs: 200_000 }));
    const served = Array.from({ length: 100 }, () => take(301_000)?.entry.turn.session);
    // One in ten, for there are ten sessions, though one in four might go for having waited too long.
    const storm = served.filter((session) => session === 'storm').length;
    assert.ok(storm >= 8 && storm <= 10, `${storm}`);
  });

  test('sessions with equal shares take turns, however many turns of one have waited for longer', () => {
    const { take, push } = queueOf();
    for (let n = 0; n < 10; n += 1) push(entry(0, { session: 'many', sinceMs: n }));
    for (let n = 0; n < 2; n += 1)
      push(...['a', 'b'].map((session) => entry(0, { session, sinceMs: 20 + n })));
    const served = Array.from({ length: 8 }, (_none, n) => take(100 + n)?.entry.turn.session);
    assert.deepEqual(served, ['many', 'a', 'b', 'many', 'a', 'b', 'many', 'many']);
  });

  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('push' as const),
        level: fc.constantFrom(...LEVELS),
        session: fc.constantFrom('a', 'b', 'c'),
        retry: fc.boolean(),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant('take' as const), worst: fc.constantFrom(...LEVELS) }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), which: fc.nat() }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('rank' as const),
        session: fc.constantFrom('a', 'b', 'c'),
        rank: fc.integer({ min: 0, max: 3 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 0, max: 200_000 }) }),
    },
  );

  test('gives out every turn once, and of a level always the one that its order says', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
        const ranks: Record<string, number> = { a: 0, b: 0, c: 0 };
        const { queue, take, push } = queueOf(ranks);
        const waiting = new Set<QueueEntry>();
        let nowMs = 0;
        for (const one of steps) {
          if (one.do === 'push') {
            const added = entry(one.level, { session: one.session, retry: one.retry, sinceMs: nowMs });
            push(added);
            waiting.add(added);
          } else if (one.do === 'pass') {
            nowMs += one.ms;
          } else if (one.do === 'rank') {
            ranks[one.session] = one.rank;
            queue.used(one.session);
          } else if (one.do === 'remove') {
            const gone = [...waiting][one.which % Math.max(1, waiting.size)];
            if (gone === undefined) continue;
            queue.remove(gone);
            queue.remove(gone);
            waiting.delete(gone);
          } else {
            const choice = take(nowMs, (level) => level <= one.worst);
            const mayGo = [...waiting].filter(({ level }) => level <= one.worst);
            if (choice === undefined) {
              assert.equal(mayGo.length, 0);
              continue;
            }
            const { entry: taken, aged } = choice;
            assert.ok(waiting.delete(taken));
            if (aged) {
              assert.ok(nowMs - taken.sinceMs >= levels.agingMs);
              continue;
            }
            assert.ok(taken.level <= one.worst);
            const key = (e: QueueEntry) => [
              e.retry ? 0 : 1,
              ranks[e.turn.session] ?? 0,
              e.sinceMs,
              e.sequence,
            ];
            for (const other of waiting) {
              if (other.level !== taken.level) continue;
              assert.ok(!smaller(key(other), key(taken)), `${key(other)} before ${key(taken)}`);
            }
          }
          assert.equal(queue.size, waiting.size);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('none starves: with all levels full, a background turn at the head waits at most twelve dispatches', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(0 as const, 1 as const), { minLength: 30, maxLength: 60 }),
        (better) => {
          const { take, push } = queueOf();
          // Whatever was served before must not matter.
          for (const level of better) push(entry(level));
          for (let n = 0; n < better.length / 2; n += 1) take();
          push(entry(2));
          for (let n = 0; n < 100; n += 1) push(entry(0), entry(1));
          const at = levelsOf(200, take).indexOf(2);
          assert.ok(at >= 0 && at < 12, `${at}`);
        },
      ),
    );
  });
});

function smaller(a: readonly number[], b: readonly number[]): boolean {
  for (let index = 0; index < a.length; index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
