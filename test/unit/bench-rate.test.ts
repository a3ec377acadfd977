// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type DueCall, growthOf, type Measured, minutesOf } from '../bench/rate/minutes.ts';

const call = (dueMs: number, tookMs: number, heldBack = false): DueCall => ({ dueMs, tookMs, heldBack });
const sample = (atMs: number, rssBytes: number, fds: number, cpuMs = 0, idleMs = 0) => ({
  atMs,
  rssBytes,
  fds,
  cpuMs,
  idleMs,
});
const measured: Measured = {
  calls: [call(0, 10), call(59_999, 30, true), call(60_000, 20), call(119_999, 60)],
  bare: [call(500, 4), call(59_500, 6), call(60_500, 10), call(119_500, 30)],
  samples: [
    sample(0, 100, 20, 0, 0),
    sample(20_000, 300, 90, 50, 10_000),
    sample(40_000, 200, 30, 100, 20_000),
    sample(60_000, 400, 31, 150, 90_000),
    sample(100_000, 600, 33, 300, 150_000),
  ],
  tallies: [
    { managed: 5, unmanaged: 1, unanswered: 0 },
    { managed: 6, unmanaged: 1, unanswered: 1 },
    { managed: 8, unmanaged: 2, unanswered: 1 },
  ],
  cores: 2,
};

describe('a rate, minute by minute', () => {
  it('counts a call in the minute in which it was due', () => {
    const minutes = minutesOf(measured);
    assert.deepEqual(
      minutes.map(({ calls, heldBack, callMs }) => [calls, heldBack, callMs.min, callMs.max]),
      [
        [2, 1, 10, 30],
        [2, 0, 20, 60],
      ],
    );
  });

  it('has plain bash beside them', () => {
    const minutes = minutesOf(measured);
    assert.deepEqual(
      minutes.map(({ bashMs }) => bashMs.p50),
      [5, 20],
    );
    assert.equal(growthOf(minutes, measured.calls).bashP50, 4);
  });

  it('has what was managed and answered between its ends', () => {
    assert.deepEqual(
      minutesOf(measured).map(({ managed, unmanaged, unanswered }) => [managed, unmanaged, unanswered]),
      [
        [1, 0, 1],
        [2, 1, 0],
      ],
    );
  });

  it('has medians and the most of its samples, and the share of the CPUs that was used', () => {
    assert.deepEqual(
      minutesOf(measured).map(({ rssBytes, fds, mostFds, cpuMs, busy }) => [
        rssBytes,
        fds,
        mostFds,
        cpuMs,
        busy,
      ]),
      [
        [200, 30, 90, 100, 0.75],
        [500, 32, 33, 150, 0.25],
      ],
    );
  });

  it('refuses a minute of which nothing is known', () => {
    assert.throws(() => minutesOf({ ...measured, calls: measured.calls.slice(0, 2) }), /minute 2/);
    assert.throws(
      () => minutesOf({ ...measured, samples: measured.samples.slice(0, 4) }),
      /1 samples in minute 2/,
    );
  });

  it('grows from the first minute to the last', () => {
    const growth = growthOf(minutesOf(measured), measured.calls);
    assert.deepEqual([growth.p50, growth.rss, growth.fds], [2, 2.5, 32 / 30]);
    assert.throws(() => growthOf(minutesOf(measured).slice(1), measured.calls), /two minutes/);
  });
});
