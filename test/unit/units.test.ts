// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  durationWord,
  formatBytes,
  formatMs,
  MAX_DURATION_MS,
  MAX_SIZE_BYTES,
  type Parsed,
  parseDuration,
  parseSize,
  sizeWord,
} from '../../daemon/units.ts';

function value(parsed: Parsed): number {
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.reason);
  return parsed.value;
}

describe('parseSize', () => {
  const sizes: readonly (readonly [string, number])[] = [
    ['1', 1],
    ['4096', 4096],
    ['1k', 1024],
    ['1K', 1024],
    ['1kb', 1024],
    ['1KiB', 1024],
    ['1kIb', 1024],
    ['512B', 512],
    ['64M', 64 * 2 ** 20],
    ['1.5G', 1.5 * 2 ** 30],
    ['1.5GB', 1.5 * 2 ** 30],
    ['0.5k', 512],
    ['08g', 8 * 2 ** 30],
    ['2TiB', 2 * 2 ** 40],
    ['1024T', MAX_SIZE_BYTES],
    ['1.9', 1],
    ['max', Number.POSITIVE_INFINITY],
  ];
  for (const [text, bytes] of sizes) {
    test(`${text} is ${bytes} bytes`, () => assert.equal(value(parseSize(text)), bytes));
  }

  const refused: readonly string[] = [
    ...['', ' ', '0', '0.0', '0G', '0.4', '-1g', '-0', '+1', '1e9', '0x10', 'NaN', 'Infinity', 'inf'],
    ...['MAX', '1 G', ' 1G', '1G ', '1G\n', '1,5G', '1_000', '.5G', '1.', '1..5G', '1.5.5', 'G', 'iB', '1i'],
    ...['1iB', '1Ki', '1KK', '1P', '1%', '1025T', '99999999999999g', '9'.repeat(400), 'abcg', '$(id)', '１G'],
  ];
  for (const text of refused) {
    test(`${JSON.stringify(text).slice(0, 30)} is refused`, () => assert.equal(parseSize(text).ok, false));
  }

  test('names a negative size as such', () => {
    assert.deepEqual(parseSize('-1g'), { ok: false, reason: 'negative' });
  });

  test('never yields anything but a whole number of bytes in range, whatever the text', () => {
    const texts = fc.oneof(fc.string(), fc.stringMatching(/^-?[0-9]{0,25}\.?[0-9]{0,25}[kmgtKMGT]?i?[bB]?$/));
    fc.assert(
      fc.property(texts, (text) => {
        const parsed = parseSize(text);
        if (!parsed.ok || text === 'max') return;
        assert.ok(Number.isSafeInteger(parsed.value));
        assert.ok(parsed.value >= 1 && parsed.value <= MAX_SIZE_BYTES);
      }),
    );
  });

  test('reads back what sizeWord writes, never less and less than one MiB more', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: MAX_SIZE_BYTES }), (bytes) => {
        const back = value(parseSize(sizeWord(bytes)));
        assert.ok(back >= bytes && back - bytes < 2 ** 20, sizeWord(bytes));
      }),
    );
    assert.equal(sizeWord(Number.POSITIVE_INFINITY), 'max');
  });
});

describe('parseDuration', () => {
  const durations: readonly (readonly [string, number])[] = [
    ['1ms', 1],
    ['250ms', 250],
    ['1', 1_000],
    ['1.001', 1_001],
    ['1.5s', 1_500],
    ['0.001s', 1],
    ['10m', 600_000],
    ['2h', 7_200_000],
    ['0.5h', 1_800_000],
    ['596h', 2_145_600_000],
    ['2147483.647', MAX_DURATION_MS],
  ];
  for (const [text, ms] of durations) {
    test(`${text} is ${ms} ms`, () => assert.equal(value(parseDuration(text)), ms));
  }

  const refused: readonly string[] = [
    ...['', '0', '0s', '0.5ms', '0.0001', '-1s', '1e3', '0x10', 'NaN', 'Infinity', 'max', '1d', '1M', '1 s'],
    ...['s', '1ss', '1.s', '.5s', '10m30s', '597h', '2147483.648', '9'.repeat(400)],
  ];
  for (const text of refused) {
    test(`${JSON.stringify(text).slice(0, 30)} is refused`, () =>
      assert.equal(parseDuration(text).ok, false));
  }

  test('reads back exactly what durationWord writes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: MAX_DURATION_MS }), (ms) => {
        assert.equal(value(parseDuration(durationWord(ms))), ms);
      }),
    );
  });

  test('is exact for every whole number of milliseconds written in seconds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: MAX_DURATION_MS }), (ms) => {
        assert.equal(value(parseDuration((ms / 1_000).toFixed(3))), ms);
      }),
    );
  });
});

describe('for people', () => {
  const bytes: readonly (readonly [number, string])[] = [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [128 * 2 ** 20, '128 MiB'],
    [1.5 * 2 ** 30, '1.5 GiB'],
    [2 ** 30 - 1, '1 GiB'],
    [0.9 * 2 ** 30, '921.6 MiB'],
    [5000 * 2 ** 40, '5000 TiB'],
    [Number.POSITIVE_INFINITY, 'max'],
  ];
  for (const [number, text] of bytes) {
    test(`${number} bytes are ${text}`, () => assert.equal(formatBytes(number), text));
  }

  const times: readonly (readonly [number, string])[] = [
    [0, '0 ms'],
    [12.4, '12 ms'],
    [99, '99 ms'],
    [99.9, '0.1 s'],
    [412, '0.4 s'],
    [1_234, '1.2 s'],
    [9_949, '9.9 s'],
    [9_951, '10 s'],
    [59_400, '59 s'],
    [59_600, '1 min'],
    [65_000, '1 min 5 s'],
    [3_600_000, '1 h'],
    [7_380_000, '2 h 3 min'],
  ];
  for (const [ms, text] of times) {
    test(`${ms} ms are ${text}`, () => assert.equal(formatMs(ms), text));
  }
});
