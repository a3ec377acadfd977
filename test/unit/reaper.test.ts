// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Silence } from '../../daemon/scheduler/reaper.ts';
import { SilenceWatch, type Watched } from '../../daemon/scheduler/reaper.ts';
import { defaultSettings, type ReaperSettings } from '../../daemon/scheduler/settings.ts';
import { SimulatedClock } from '../../daemon/sim/clock.ts';

const SECOND = 1_000;

/** A watch, what it told, and when. */
function watched(turn: Watched = { streaming: true }, changes: Partial<ReaperSettings> = {}) {
  const clock = new SimulatedClock();
  const told: (Silence & { atMs: number })[] = [];
  const watch = new SilenceWatch(clock, { ...defaultSettings.reaper, ...changes }, turn, (silence) => {
    told.push({ ...silence, atMs: clock.now() });
    if (!changes.dryRun) watch.stop();
  });
  const until = (seconds: number) => clock.run(seconds * SECOND);
  const causes = () => told.map(({ cause, atMs }) => `${cause} ${atMs / SECOND}`);
  return { clock, watch, told, until, causes };
}

describe('SilenceWatch', () => {
  test('nothing at all comes: ended at 120 s, to the millisecond', () => {
    const { told, until } = watched();
    until(119.999);
    assert.deepEqual(told, []);
    until(120);
    assert.deepEqual(
      told.map(({ cause, atMs, silentMs, sinceContentMs }) => [cause, atMs, silentMs, sinceContentMs]),
      [['first-byte', 120_000, 120_000, null]],
    );
  });

  test('it comes to a stop: 120 s after the last byte', () => {
    const { watch, until, causes } = watched();
    until(1);
    watch.headers();
    until(10);
    watch.progress('content');
    until(1_000);
    assert.deepEqual(causes(), ['between-bytes 130']);
  });

  test('pings keep it alive, but not beyond 280 s without content', () => {
    const { watch, until, causes } = watched();
    for (let second = 5; second < 1_000; second += 5) {
      until(second);
      if (second === 60) watch.progress('content');
      else watch.progress('ping');
    }
    assert.deepEqual(causes(), ['pings-only 340']);
  });

  test('120 s of silent thinking with pings is no hang', () => {
    const { watch, until, causes } = watched();
    watch.headers();
    for (let second = 10; second <= 130; second += 10) {
      until(second);
      watch.progress('ping');
    }
    watch.progress('content');
    assert.deepEqual(causes(), []);
  });

  test('a token every 5 s is no hang, for as long as its lease lasts', () => {
    const { watch, until, causes } = watched();
    for (let second = 5; second < 3_600; second += 5) {
      until(second);
      watch.progress('content');
    }
    assert.deepEqual(causes(), []);
    until(3_600);
    assert.deepEqual(causes(), ['lease-expired 3600']);
  });

  test('a reader that is slow, or frozen, stops the time', () => {
    const { watch, until, told, causes } = watched();
    until(100);
    watch.pause('back-pressure');
    until(500);
    watch.pause('frozen');
    until(600);
    watch.resume('back-pressure');
    until(1_000);
    watch.resume('frozen');
    until(1_019);
    assert.deepEqual(causes(), []);
    until(1_020);
    assert.deepEqual(causes(), ['first-byte 1020']);
    assert.deepEqual([told[0]?.silentMs, told[0]?.pausedMs, told[0]?.heldMs], [120_000, 900_000, 1_020_000]);
  });

  test('a lease that is paused for ever expires all the same', () => {
    const { watch, until, causes } = watched();
    watch.pause('back-pressure');
    until(10_000);
    assert.deepEqual(causes(), ['lease-expired 3600']);
  });

  test("a response that is not streamed has the client's own time", () => {
    const own = watched({ streaming: false, clientTimeoutMs: 300 * SECOND });
    own.until(1_000);
    assert.deepEqual(own.causes(), ['whole-response 300']);
    const unknown = watched({ streaming: false });
    unknown.until(1_000);
    assert.deepEqual(unknown.causes(), ['whole-response 600']);
  });

  test('a dry run tells of each silence once, and the turn lives on', () => {
    const { watch, until, causes } = watched({ streaming: true }, { dryRun: true });
    until(500);
    watch.progress('content');
    until(600);
    watch.progress('content');
    until(1_000);
    assert.deepEqual(causes(), ['first-byte 120', 'between-bytes 720']);
  });

  test('a scan finds it at its next round', () => {
    const { until, causes } = watched({ streaming: true }, { firstByteMs: 12 * SECOND, scanMs: 5 * SECOND });
    until(100);
    assert.deepEqual(causes(), ['first-byte 15']);
  });

  test('leaves no timer behind', () => {
    const { watch, clock } = watched();
    watch.progress('content');
    watch.pause('frozen');
    watch.resume('frozen');
    watch.stop();
    assert.equal(clock.timers, 0);
  });

  const event = fc.record({
    afterMs: fc.integer({ min: 0, max: 90_000 }),
    kind: fc.constantFrom('content', 'ping', 'pause', 'resume', 'headers'),
  });

  test('never ends what had a byte in the last 120 s of reading, always ends what had none', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const { clock, watch, told } = watched();
        // A second account of the same, in small steps rather than by timers.
        let activeMs = 0;
        let byteMs = 0;
        let contentMs = 0;
        let paused = false;
        for (const { afterMs, kind } of events) {
          clock.run(clock.now() + afterMs);
          if (!paused) activeMs += afterMs;
          if (told.length > 0) break;
          assert.ok(activeMs - byteMs < 120_000 && activeMs - contentMs < 280_000, 'a hang was missed');
          if (kind === 'content' || kind === 'ping') watch.progress(kind);
          if (kind === 'headers') watch.headers();
          if (kind === 'pause') watch.pause('back-pressure');
          if (kind === 'resume') watch.resume('back-pressure');
          if (kind === 'pause' || kind === 'resume') paused = kind === 'pause';
          else byteMs = activeMs;
          if (kind === 'content') contentMs = activeMs;
        }
        const [silence] = told;
        if (silence === undefined || silence.cause === 'lease-expired') return;
        const limitMs = silence.cause === 'pings-only' ? 280_000 : 120_000;
        assert.equal(silence.silentMs, limitMs);
        assert.ok(
          activeMs - byteMs >= 120_000 || activeMs - contentMs >= 280_000,
          'a healthy turn was ended',
        );
      }),
    );
  });
});
