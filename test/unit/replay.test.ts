// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { areHigh, defaultClasses, limitsOf } from '../../daemon/replay/arms.ts';
import { orderText } from '../../daemon/replay/process.ts';
import { medianInterval, quantile } from '../../daemon/replay/statistics.ts';
import { parseTrace, peakBytes } from '../../daemon/replay/trace.ts';

const main = fileURLToPath(new URL('../../daemon/cli/main.ts', import.meta.url));

describe('a trace', () => {
  test('is a list of seconds and decimal megabytes, alone or as samples', () => {
    const list = [
      [0, 12],
      [1.041, 185.5],
      [2.086, 0],
    ];
    const expected = [
      { atMs: 0, bytes: 12_000_000 },
      { atMs: 1041, bytes: 185_500_000 },
      { atMs: 2086, bytes: 0 },
    ];
    assert.deepEqual(parseTrace(JSON.stringify(list), 'x'), expected);
    assert.deepEqual(parseTrace(JSON.stringify({ source: 'y', samples: list }), 'x'), expected);
    assert.equal(peakBytes(expected), 185_500_000);
  });

  test('is the resources.json of AgentCgroup, whose time begins at its first sample', () => {
    const samples = [
      { epoch: 1770000000.25, mem_usage: '185.5MB / 134.5GB', cpu_percent: '66.25%' },
      { epoch: 1770000001.75, mem_usage: '1.862GB / 134.5GB' },
      { epoch: 1770000002.75, mem_usage: '2MiB / 8GiB' },
      { epoch: 1770000002.75, mem_usage: '0B / 0B' },
      { epoch: 1770000003, mem_usage: '512kB' },
    ];
    assert.deepEqual(parseTrace(JSON.stringify({ samples, summary: {} }), 'x'), [
      { atMs: 0, bytes: 185_500_000 },
      { atMs: 1500, bytes: 1_862_000_000 },
      { atMs: 2500, bytes: 2 * 2 ** 20 },
      { atMs: 2500, bytes: 0 },
      { atMs: 2750, bytes: 512_000 },
    ]);
  });

  const refused: readonly (readonly [text: string, message: RegExp])[] = [
    ['', /^t: Unexpected end of JSON input$/],
    ['[[0, 1],\n[1, }]', /^t: Unexpected token '}', "\[\[0, 1\],\n\[1, }\]" is not valid JSON$/],
    ['{\n  "samples" []}', /^t: .* at position 14 \(line 2 column 13\)$/],
    ['3', /^t: neither a list of samples nor an object with one$/],
    ['null', /^t: neither/],
    ['{"samples": {}}', /^t: neither/],
    ['[]', /^t: no samples$/],
    ['{"samples": []}', /^t: no samples$/],
    ['[[0, 1], [1, -2]]', /^t: sample 2: negative memory in \[1,-2\]$/],
    ['[[0, 1], [1, "2"]]', /^t: sample 2: no memory in /],
    ['[[0, 1], [1]]', /^t: sample 2: no memory in /],
    ['[[0, 1e40]]', /^t: sample 1: memory over 1024T/],
    ['[["0", 1]]', /^t: sample 1: no time in /],
    ['[[2, 1], [1, 1]]', /^t: sample 2: time goes back$/],
    ['[[0, 1], [1e9, 1]]', /^t: sample 2: more than 30 days/],
    ['[5]', /^t: sample 1: no time in 5$/],
    ['[null]', /^t: sample 1: no time in null$/],
    ['{"samples": [{"epoch": 1, "mem_usage": "much"}]}', /^t: sample 1: no memory in /],
    ['{"samples": [{"epoch": 1, "mem_usage": "-5MB / 1GB"}]}', /^t: sample 1: negative memory in /],
    ['{"samples": [{"mem_usage": "5MB / 1GB"}]}', /^t: sample 1: no time in /],
  ];
  for (const [text, message] of refused) {
    test(`is refused with the place: ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseTrace(text, 't'), { name: 'TraceError', message });
    });
  }

  test('of any content is read or refused as a trace', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        try {
          for (const { atMs, bytes } of parseTrace(text, 't')) assert.ok(atMs >= 0 && bytes >= 0);
        } catch (error) {
          assert.equal((error as Error).name, 'TraceError');
        }
      }),
    );
  });

  test('becomes orders in nanoseconds, faster as asked', () => {
    const trace = [
      { atMs: 0, bytes: 5 },
      { atMs: 1041, bytes: 7 },
    ];
    assert.equal(
      orderText({ trace, speed: 10, baseBytes: 100, startNs: 12345678901234567n }),
      '12345678901234567 100 2\n0 5\n104100000 7\n',
    );
  });
});

describe('arms', () => {
  const free = { maxBytes: Infinity, highBytes: Infinity, waits: false };
  const classes = defaultClasses(3);

  test('count the first session, or those of the highest class', () => {
    assert.deepEqual(classes, ['interactive', 'background', 'background']);
    assert.deepEqual(areHigh(['background', 'subagent', 'subagent']), [false, true, true]);
    assert.deepEqual(areHigh(['background', 'background']), [true, true]);
  });

  test('limit sessions each in its way', () => {
    const share = 366;
    assert.deepEqual(limitsOf('none', classes, 1100), [free, free, free]);
    assert.deepEqual(
      limitsOf('static', classes, 1100),
      [free, free, free].map((one) => ({ ...one, maxBytes: share })),
    );
    const low = { ...free, highBytes: share };
    assert.deepEqual(limitsOf('high', classes, 1100), [free, low, low]);
    assert.deepEqual(limitsOf('high', classes, 1100, 400)[2], { ...free, highBytes: 400 });
    const waiting = { ...free, waits: true };
    assert.deepEqual(limitsOf('freeze', ['background', 'interactive', 'subagent'], 1100), [
      waiting,
      free,
      waiting,
    ]);
  });
});

describe('statistics of runs', () => {
  test('know quantiles', () => {
    assert.equal(quantile([], 0.5), null);
    assert.equal(quantile([3, 1, 2], 0.5), 2);
    assert.equal(quantile([4, 1, 2, 3], 0.5), 2.5);
    assert.equal(quantile([10, 0], 0.95), 9.5);
  });

  test('give the interval of a median only where its coverage is 95 %', () => {
    // The ranks of published tables for the median, two-sided 95 %.
    const ranks: Readonly<Record<number, readonly [number, number]>> = {
      6: [1, 6],
      7: [1, 7],
      8: [1, 8],
      9: [2, 8],
      10: [2, 9],
      15: [4, 12],
      20: [6, 15],
      25: [8, 18],
      40: [14, 27],
    };
    const upTo = (count: number) => Array.from({ length: count }, (_, index) => count - index);
    for (const [count, expected] of Object.entries(ranks)) {
      assert.deepEqual(medianInterval(upTo(Number(count))), expected, `of ${count}`);
    }
    for (const count of [0, 1, 3, 5]) assert.equal(medianInterval(upTo(count)), null);
  });
});

describe('agentrm replay', () => {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-unit-replay-'));
  after(() => rmSync(dir, { recursive: true }));
  const good = join(dir, 'good.json');
  writeFileSync(good, '[[0, 1], [1, 2]]');
  const bad = join(dir, 'bad.json');
  writeFileSync(bad, '[[0, 1], [1, -2]]');

  async function replay(...args: string[]): Promise<{ code: number; out: string; err: string }> {
    try {
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [main, 'replay', ...args]);
      return { code: 0, out: stdout, err: stderr };
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { code, out: stdout, err: stderr };
    }
  }

  const misused: readonly (readonly [args: readonly string[], message: RegExp])[] = [
    [['--limit', '1G'], /--trace <file\.\.\.>' not specified/],
    [['--trace', good], /--limit <size>' not specified/],
    [['--trace', good, '--limit', '0'], /--limit .*less than 1 byte/],
    [['--trace', good, '--limit', '-1G'], /--limit/],
    [['--trace', good, '--limit', 'max'], /--limit .*must be a size/],
    [
      ['--trace', good, '--limit', '1M', '--arm', 'other'],
      /--arm .*Allowed choices are none, static, high, freeze/,
    ],
    [['--trace', good, '--limit', '1M', '--speed', '0'], /--speed .*from 0\.001 to 1000/],
    [['--trace', good, '--limit', '1M', '--runs', '1.5'], /--runs .*whole number/],
    [['--trace', good, '--limit', '1M', '--class', 'urgent'], /--class .*one of interactive/],
    [['--trace', good, good, '--limit', '1M', '--class', 'subagent'], /^agentrm: --class: 1 for 2 traces$/],
    [['--trace', join(dir, 'none.json'), '--limit', '1M'], /none\.json: ENOENT/],
    [['--trace', dir, '--limit', '1M'], /EISDIR/],
    [['--trace', good, bad, '--limit', '1M'], /bad\.json: sample 2: negative memory in \[1,-2\]$/],
  ];
  for (const [args, message] of misused) {
    test(`refuses ${args.join(' ').replaceAll(`${dir}/`, '')}`, async () => {
      const { code, out, err } = await replay(...args);
      assert.match(err.trim(), message);
      assert.deepEqual([code, out], [2, '']);
    });
  }
});
