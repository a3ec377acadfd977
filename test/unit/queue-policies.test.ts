// SPDX-License-Identifier: Apache-2.0
// The orders of the queue beside priority: by deadline and by fair share.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DeadlineQueue } from '../../daemon/scheduler/deadline-queue.ts';
import { FairShareQueue } from '../../daemon/scheduler/fair-share-queue.ts';
import { disciplineOf, QUEUE_POLICIES } from '../../daemon/scheduler/policies.ts';
import { type Discipline, LEVELS, type Level, type QueueEntry } from '../../daemon/scheduler/queue.ts';
import { TURN_CLASSES, type Turn } from '../../daemon/scheduler/types.ts';
import { leaseOf, SchedulerLab, turn } from '../lib/scheduler.ts';

let sequence = 0;

function entry(level: Level, changes: Partial<Turn> = {}, rest: Partial<QueueEntry> = {}): QueueEntry {
  sequence += 1;
  const one = turn({ class: TURN_CLASSES[level], ...changes });
  return { turn: one, level, sinceMs: 0, sequence, retry: false, ...rest };
}

/** The ids of those that go, in order. */
function drain(queue: Discipline, mayGo: (level: Level) => boolean = () => true): string[] {
  const ids: string[] = [];
  for (let choice = queue.next(0, mayGo); choice !== undefined; choice = queue.next(0, mayGo)) {
    queue.take(choice, 0);
    ids.push(choice.entry.turn.id);
  }
  return ids;
}

describe('by deadline', () => {
  const queueOf = (...entries: QueueEntry[]) => {
    const queue = new DeadlineQueue();
    for (const one of entries) queue.push(one);
    return queue;
  };

  test('whose time is up first goes first: by its own word, else by its class and since when it waits', () => {
    const queue = queueOf(
      entry(2, { id: 'old background' }, { sinceMs: -240_000 }),
      entry(0, { id: 'user' }),
      entry(0, { id: 'patient user', deadlineMs: 100_000 }),
      entry(1, { id: 'subagent' }),
      entry(2, { id: 'urgent background', deadlineMs: 5_000 }),
      entry(2, { id: 'background' }),
    );
    assert.deepEqual(drain(queue), [
      'old background',
      'urgent background',
      'user',
      'subagent',
      'patient user',
      'background',
    ]);
  });

  test('a long run keeps what its class was promised', () => {
    // Down to the last level by what it has used.
    const demoted = entry(2, { id: 'demoted', class: 'interactive' });
    assert.deepEqual(drain(queueOf(entry(1, { id: 'subagent' }), demoted)), ['demoted', 'subagent']);
  });

  test('of equal deadlines who came first', () => {
    const ids = ['a', 'b', 'c', 'd', 'e'];
    const entries = ids.map((id) => entry(0, { id }));
    assert.deepEqual(drain(queueOf(...entries.reverse())), ids);
  });
});

describe('by fair share', () => {
  const queueOf = (ranks: Record<string, number>, ...entries: QueueEntry[]) => {
    const queue = new FairShareQueue((session) => ranks[session] ?? 0);
    for (const one of entries) queue.push(one);
    return queue;
  };

  test('who has used least goes first, whatever its class; of equals who came first', () => {
    const queue = queueOf(
      { greedy: 3, modest: 1 },
      entry(0, { id: 'greedy user', session: 'greedy' }),
      entry(2, { id: 'modest background', session: 'modest' }),
      entry(1, { id: 'late', session: 'new' }, { sinceMs: 5 }),
      entry(2, { id: 'early', session: 'new too' }),
    );
    assert.deepEqual(drain(queue), ['early', 'late', 'modest background', 'greedy user']);
  });

  test('what a session uses counts at once, and so do new capacities', () => {
    const ranks: Record<string, number> = { a: 0, b: 1 };
    const queue = queueOf(ranks, entry(0, { id: 'a', session: 'a' }), entry(0, { id: 'b', session: 'b' }));
    const first = () => queue.next(0, () => true)?.entry.turn.id;
    assert.equal(first(), 'a');
    ranks.a = 2;
    queue.used('a');
    assert.equal(first(), 'b');
    ranks.b = 3;
    queue.rekey();
    assert.equal(first(), 'a');
  });

  test('sessions that used alike take turns, at whatever level their turns wait', () => {
    const queue = queueOf(
      {},
      ...[0, 1, 2].map((sinceMs) => entry(0, { session: 'many' }, { sinceMs })),
      entry(2, { session: 'many' }, { sinceMs: 3 }),
      entry(1, { session: 'other' }, { sinceMs: 10 }),
    );
    const served: string[] = [];
    for (let nowMs = 100; queue.size > 0; nowMs += 1) {
      const choice = queue.next(nowMs, () => true);
      assert.ok(choice);
      queue.take(choice, nowMs);
      served.push(choice.entry.turn.session);
    }
    assert.deepEqual(served, ['many', 'other', 'many', 'many', 'many']);
  });

  test('a scheduler with it serves a modest background session before a greedy user', () => {
    const discipline = disciplineOf('fair-share');
    assert.ok(discipline);
    const lab = new SchedulerLab({ lanes: { fixed: 1 } }, { discipline });
    const first = leaseOf(lab.submit({ session: 'greedy' }));
    const user = lab.submit({ session: 'greedy' });
    const background = lab.submit({ session: 'modest', class: 'background' });
    lab.pass(5_000);
    first.end({ kind: 'ok' });
    leaseOf(background).end({ kind: 'ok' });
    leaseOf(user).end({ kind: 'ok' });
    assert.deepEqual(lab.granted.slice(1), [background.turn.id, user.turn.id]);
  });
});

describe('every order', () => {
  const made = (policy: (typeof QUEUE_POLICIES)[number]) => disciplineOf(policy)?.(() => 0);

  test('by priority is the scheduler’s own', () => {
    assert.equal(disciplineOf('priority'), undefined);
    assert.deepEqual(QUEUE_POLICIES, ['priority', 'deadline', 'fair-share']);
  });

  for (const policy of ['deadline', 'fair-share'] as const) {
    test(`${policy}: only levels that may go do; who leaves is not served; nobody is lost`, () => {
      const changes = fc.record({
        level: fc.constantFrom(...LEVELS),
        session: fc.constantFrom('a', 'b', 'c'),
        sinceMs: fc.nat(1_000),
        leaves: fc.boolean(),
      });
      fc.assert(
        fc.property(fc.array(changes, { maxLength: 30 }), fc.constantFrom(...LEVELS), (all, closed) => {
          const queue = made(policy) as Discipline;
          const entries = all.map(({ level, session, sinceMs, leaves }) => ({
            one: entry(level, { session }, { sinceMs }),
            leaves,
          }));
          for (const { one } of entries) queue.push(one);
          for (const { one, leaves } of entries) {
            if (leaves) queue.remove(one);
            if (leaves) queue.remove(one);
          }
          const stay = entries.filter(({ leaves }) => !leaves).map(({ one }) => one);
          const ids = (chosen: readonly QueueEntry[]) => chosen.map(({ turn: { id } }) => id).sort();
          assert.equal(queue.size, stay.length);
          const open = drain(queue, (level) => level !== closed).sort();
          assert.deepEqual(open, ids(stay.filter(({ level }) => level !== closed)));
          assert.deepEqual(drain(queue).sort(), ids(stay.filter(({ level }) => level === closed)));
          assert.equal(queue.size, 0);
        }),
      );
    });
  }
});
