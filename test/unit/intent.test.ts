// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CALL_CLASSES, type Intent, parseIntent, quoteWord } from '../../daemon/toolcall/intent.ts';
import { durationWord, sizeWord } from '../../daemon/units.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

describe('parseIntent accepts', () => {
  const accepted: readonly (readonly [string, Intent])[] = [
    ['', {}],
    [' \t\r\n ', {}],
    ['memory.high=64M', { memoryHighBytes: 64 * MIB }],
    ['memory.max=max', { memoryMaxBytes: Number.POSITIVE_INFINITY }],
    ['memory.high=1G memory.max=1G', { memoryHighBytes: GIB, memoryMaxBytes: GIB }],
    ['memory.max=2G memory.high=1.5gib', { memoryHighBytes: 1.5 * GIB, memoryMaxBytes: 2 * GIB }],
    ['memory.swap.max=0', { swapMaxBytes: 0 }],
    ['cpu.weight=1 io.weight=10000', { cpuWeight: 1, ioWeight: 10_000 }],
    ['cpu.weight=idle', { cpuWeight: 0 }],
    ['cpu.max=150%', { cpuMax: { quotaUs: 150_000, periodUs: 100_000 } }],
    ['cpu.max=50000/20000', { cpuMax: { quotaUs: 50_000, periodUs: 20_000 } }],
    ['cpu.max=1000/1000000', { cpuMax: { quotaUs: 1_000, periodUs: 1_000_000 } }],
    ['cpu.max=max', { cpuMax: { quotaUs: Number.POSITIVE_INFINITY, periodUs: 100_000 } }],
    ['pids.max=max', { pidsMax: Number.POSITIVE_INFINITY }],
    ['timeout=90', { timeoutMs: 90_000 }],
    [
      '\n memory.high=1G\tmemory.max=2G cpu.weight=50\r\npids.max=512 timeout=10m class=background ',
      {
        memoryHighBytes: GIB,
        memoryMaxBytes: 2 * GIB,
        cpuWeight: 50,
        pidsMax: 512,
        timeoutMs: 600_000,
        class: 'background',
      },
    ],
  ];
  for (const [text, intent] of accepted) {
    test(JSON.stringify(text), () => assert.deepEqual(parseIntent(text), { ok: true, intent }));
  }
});

describe('parseIntent refuses, naming the word,', () => {
  const refused: readonly (readonly [text: string, word: string, reason: RegExp])[] = [
    ['memory:a[$(touch x)0]g', '"memory:a[$(touch"', /key=value/],
    ['memory.high=-1g', '"memory.high=-1g"', /negative/],
    ['memory.high=0', '"memory.high=0"', /less than 1 byte/],
    ['memory.high=99999999999999g', '"memory.high=99999999999999g"', /over 1024T/],
    ['memory.high=2G memory.max=1G', '"memory.high=2G"', /over memory.max/],
    ['memory.high=max memory.max=1G', '"memory.high=max"', /over memory.max/],
    ['pids.max=5 memory.high=1G pids.max=6', '"pids.max=6"', /twice/],
    ['Memory.high=1G', '"Memory.high=1G"', /unknown key/],
    ['memory.high=1G memory.hihg=1G', '"memory.hihg=1G"', /unknown key/],
    ['__proto__=1', '"__proto__=1"', /unknown key/],
    ['constructor=1', '"constructor=1"', /unknown key/],
    ['=1G', '"=1G"', /key=value/],
    ['memory.high', '"memory.high"', /key=value/],
    ['memory.high=', '"memory.high="', /not a size/],
    ['memory.high=1G=2G', '"memory.high=1G=2G"', /not a size/],
    ['memory.high =1G', '"memory.high"', /key=value/],
    ['memory.swap.max=-0', '"memory.swap.max=-0"', /negative/],
    ['cpu.weight=0', '"cpu.weight=0"', /1 to 10000/],
    ['cpu.weight=10001', '"cpu.weight=10001"', /1 to 10000/],
    ['cpu.weight=1.5', '"cpu.weight=1.5"', /1 to 10000 or idle/],
    ['io.weight=idle', '"io.weight=idle"', /1 to 10000$/],
    ['io.weight=max', '"io.weight=max"', /1 to 10000/],
    ['cpu.max=2', '"cpu.max=2"', /150%/],
    ['cpu.max=0.5%', '"cpu.max=0.5%"', /under 1%/],
    ['cpu.max=999999999%', '"cpu.max=999999999%"', /over/],
    ['cpu.max=1/100000', '"cpu.max=1/100000"', /150%/],
    ['cpu.max=5000/1000001', '"cpu.max=5000/1000001"', /period/],
    ['cpu.max=5000/0', '"cpu.max=5000/0"', /period/],
    ['cpu.max=999999999999/1000', '"cpu.max=999999999999/1000"', /150%/],
    ['pids.max=0', '"pids.max=0"', /1 to/],
    ['pids.max=4194305', '"pids.max=4194305"', /1 to/],
    ['timeout=max', '"timeout=max"', /not a time/],
    ['timeout=0', '"timeout=0"', /less than 1 ms/],
    ['class=vip', '"class=vip"', /interactive, subagent, background/],
    ['class=Background', '"class=Background"', /not one of/],
    ['\x1f \x7f', '"\\x1f"', /key=value/],
    ['\x7f~', '"\\x7f~"', /key=value/],
    ['\x00\x1b[2J\u202e', '"\\x00\\x1b[2J\\u{202e}"', /key=value/],
    ['\u00a0', '"\\xa0"', /key=value/],
    ['say="hi\\"', '"say=\\"hi\\\\\\""', /unknown key/],
  ];
  for (const [text, word, reason] of refused) {
    test(JSON.stringify(text), () => {
      const parsed = parseIntent(text);
      assert.ok(!parsed.ok);
      assert.equal(parsed.word, word);
      assert.match(parsed.reason, reason);
    });
  }
});

describe('parseIntent on hostile text', () => {
  test('accepts nothing unless every word is good', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1 }), fc.boolean(), (junk, first) => {
        fc.pre(/[^ \t\r\n]/.test(junk) && !junk.includes('='));
        const text = first ? `${junk} pids.max=5` : `pids.max=5 ${junk}`;
        assert.equal(parseIntent(text).ok, false);
      }),
    );
  });

  test('yields a short printable word and a short reason, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', size: 'large' }), (text) => {
        const parsed = parseIntent(text);
        if (parsed.ok) return;
        assert.ok(parsed.word.length <= 64);
        assert.match(parsed.word, /^"[\x20-\x7e…]*"$/);
        assert.ok(parsed.reason.length <= 80);
      }),
    );
  });

  // Sixteen times the text may take sixteen times as long, not 256 times; the factor 8 is for noise.
  for (const unit of [
    'x',
    ' ',
    '1',
    '=',
    'memory.high=1',
    'pids.max=1 ',
    '\u{1f600}',
    '\x00',
    '1.',
    '%',
    '/',
  ]) {
    test(`takes time linear in the length of ${JSON.stringify(unit)} repeated up to 1 MiB`, () => {
      const time = (length: number, key: string): number => {
        const text = key + unit.repeat(Math.ceil(length / unit.length));
        let best = Number.POSITIVE_INFINITY;
        for (let run = 0; run < 5; run++) {
          const startedAt = performance.now();
          parseIntent(text);
          best = Math.min(best, performance.now() - startedAt);
        }
        return best;
      };
      for (const key of ['', 'memory.high=1', 'timeout=1', 'cpu.max=1', 'pids.max=1']) {
        const short = time(2 ** 16, key);
        const long = time(2 ** 20, key);
        assert.ok(long <= 16 * 8 * Math.max(short, 0.2), `${key}: ${short} ms, then ${long} ms`);
      }
    });
  }

  test('reads back any intent that was written in its own words', () => {
    const intents = fc.record(
      {
        memoryHighBytes: fc.integer({ min: 1, max: 1023 }).map((mib) => mib * MIB),
        memoryMaxBytes: fc.integer({ min: 1, max: 1023 }).map((gib) => gib * GIB),
        cpuWeight: fc.integer({ min: 1, max: 10_000 }),
        pidsMax: fc.integer({ min: 1, max: 4_194_304 }),
        timeoutMs: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        class: fc.constantFrom(...CALL_CLASSES),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(intents, (intent) => {
        const words = [
          intent.memoryMaxBytes && `memory.max=${sizeWord(intent.memoryMaxBytes)}`,
          intent.memoryHighBytes && `memory.high=${sizeWord(intent.memoryHighBytes)}`,
          intent.class && `class=${intent.class}`,
          intent.timeoutMs && `timeout=${durationWord(intent.timeoutMs)}`,
          intent.pidsMax && `pids.max=${intent.pidsMax}`,
          intent.cpuWeight && `cpu.weight=${intent.cpuWeight}`,
        ];
        const text = words.filter((word) => word !== undefined).join(' ');
        assert.deepEqual(parseIntent(text), { ok: true, intent: { ...intent } });
      }),
    );
  });
});

describe('quoteWord', () => {
  test('cuts long words and says so', () => {
    assert.equal(quoteWord('x'.repeat(100), 10), '"xxxxxxx…"');
    assert.equal(quoteWord('\x00'.repeat(100), 10), '"\\x00…"');
  });

  test('leaves a short word whole', () => {
    assert.equal(quoteWord('memory.high=1G'), '"memory.high=1G"');
    assert.equal(quoteWord(''), '""');
  });
});
