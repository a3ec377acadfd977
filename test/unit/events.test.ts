// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventLog } from '../../daemon/control/events.ts';
import type { Event } from '../../daemon/control/types.ts';

/** The next so many events of a follower. */
async function take(events: AsyncGenerator<Event>, count: number): Promise<Event[]> {
  const taken: Event[] = [];
  while (taken.length < count) {
    const { value, done } = await events.next();
    if (done) break;
    taken.push(value);
  }
  return taken;
}

test('the newest thousand are remembered, in order', () => {
  const log = new EventLog();
  for (let index = 0; index < 1500; index += 1) log.emit('x', undefined, { index });
  const seqs = log.remembered(undefined).map(({ seq }) => seq);
  assert.deepEqual(
    seqs,
    Array.from({ length: 1000 }, (_, index) => 501 + index),
  );
});

test('a user sees its own and what is for all, in memory and as it comes', async () => {
  const log = new EventLog();
  const gone = new AbortController();
  for (const uid of [1, 2, undefined]) log.emit('before', uid, { of: uid });
  const events = log.follow(1, gone.signal);
  assert.equal((await take(events, 2)).length, 2);
  for (const uid of [2, undefined, 1]) log.emit('after', uid, { of: uid });
  assert.deepEqual(
    (await take(events, 2)).map(({ of: uid }) => uid),
    [undefined, 1],
  );
  gone.abort();
  assert.equal((await events.next()).done, true);
});

test('a reader that is too slow loses events, is told where and how many, and goes on', async () => {
  const log = new EventLog();
  const gone = new AbortController();
  const events = log.follow(undefined, gone.signal);
  log.emit('first', undefined, {});
  await take(events, 1);
  for (let index = 0; index < 10_000; index += 1) log.emit('many', undefined, {});
  let seq = 1;
  let lost: Event | undefined;
  while (lost === undefined) {
    const [event] = await take(events, 1);
    assert.ok(event !== undefined);
    if (event.kind === 'lost') lost = event;
    else assert.equal(event.seq, ++seq);
    // What comes while it catches up is lost too, so that there is one gap only.
    if (seq === 100) log.emit('meanwhile', undefined, {});
  }
  assert.equal(seq, 1 + 4096);
  assert.equal(lost.count, 10_000 - 4096 + 1);
  assert.equal(log.dropped, lost.count);
  log.emit('again', undefined, {});
  assert.equal((await take(events, 1))[0]?.seq, 10_003);
  gone.abort();
});

test('a reader that goes while it waits ends, and costs nothing afterwards', async () => {
  const log = new EventLog();
  const gone = new AbortController();
  const events = log.follow(undefined, gone.signal);
  const next = events.next();
  gone.abort();
  assert.equal((await next).done, true);
  for (let index = 0; index < 10_000; index += 1) log.emit('x', undefined, {});
  assert.equal(log.dropped, 0);
});
