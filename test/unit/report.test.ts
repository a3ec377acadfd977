// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { KILL_CODES, outcomeOf } from '../../daemon/policy/decide.ts';
import { type CallFacts, intentLine, reportLine, reportOf } from '../../daemon/policy/report.ts';
import { parseIntent } from '../../daemon/toolcall/intent.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const settings = { slowMs: 250 };

const quiet: CallFacts = {
  limits: {
    memoryHighBytes: 115 * MIB,
    highIsGuess: false,
    memoryMaxBytes: 128 * MIB,
    swapMaxBytes: 0,
    cpuWeight: 100,
    cpuMax: { quotaUs: Infinity, periodUs: 100_000 },
    ioWeight: 100,
    pidsMax: 512,
    timeoutMs: 600_000,
    class: 'interactive',
  },
  ceilingBytes: 8 * GIB,
  outcome: 'ok',
  killCode: null,
  peakBytes: 20 * MIB,
  throttledMs: 0,
  throttledBy: 'sleeps',
  highEvents: 0,
  frozenMs: 0,
  admissionWaitMs: 0,
  durationMs: 10_000,
  oomEvents: 0,
  oomEventsBelow: 0,
  oomKills: 0,
  shellLived: false,
  pidsMaxHits: 0,
  pidsMaxOwn: true,
  poolShort: false,
  lentBytes: 0,
  leftovers: 0,
  leftoversKept: true,
};

function facts(given: Partial<CallFacts>): CallFacts {
  return { ...quiet, outcome: outcomeOf({ killCode: null, oomKills: 0, ...given }), ...given };
}

const oom: Partial<CallFacts> = { oomEvents: 1, oomKills: 3, peakBytes: 128 * MIB };

describe('reportLine', () => {
  const lines: readonly (readonly [what: string, given: Partial<CallFacts>, line: string | null])[] = [
    ['nothing worth telling', {}, null],
    ['slowed by less than is worth telling', { frozenMs: 100, throttledMs: 149, lentBytes: GIB }, null],
    ['a wait that is not worth telling', { admissionWaitMs: 249 }, null],
    [
      'its own memory.max',
      oom,
      'killed for memory: reached its memory.max 128 MiB (peak 128 MiB); ask for more with AGENTRM_INTENT="memory.max=256M"',
    ],
    [
      'its own memory.max, near the ceiling',
      { ...oom, ceilingBytes: 200 * MIB + 5 },
      'killed for memory: reached its memory.max 128 MiB (peak 128 MiB); ask for more with AGENTRM_INTENT="memory.max=200M"',
    ],
    [
      'its own memory.max, which is the ceiling',
      { ...oom, ceilingBytes: 128 * MIB },
      'killed for memory: reached its memory.max 128 MiB (peak 128 MiB), the most that is allowed here; make it smaller or split it',
    ],
    [
      "somebody else's limit",
      { oomKills: 1, peakBytes: 60 * MIB },
      'killed for memory by a limit that is not its own (used 60 MiB, its memory.max is 128 MiB); run it again when less else runs, or make it smaller',
    ],
    [
      'a bulk call that the pool had no room for',
      { ...oom, peakBytes: 70 * MIB },
      'killed for memory: it took 70 MiB at once and the host could not lend more (its memory.max is 128 MiB); ask for more with AGENTRM_INTENT="memory.high=128M"',
    ],
    [
      'one stage of a pipeline that the shell outlived',
      { ...oom, oomKills: 1, shellLived: true },
      'killed for memory, but not the shell: reached its memory.max 128 MiB (peak 128 MiB); ask for more with AGENTRM_INTENT="memory.max=256M"',
    ],
    [
      'a limit that the command has set itself',
      { oomEventsBelow: 1, oomKills: 2, shellLived: true, peakBytes: 60 * MIB },
      'killed for memory, but not the shell: reached a limit that the command itself has set (used 60 MiB, its memory.max is 128 MiB)',
    ],
    [
      'its timeout, for which it was throttled',
      { killCode: 'timeout', throttledMs: 8_000, peakBytes: 115 * MIB },
      'killed: ran longer than its timeout of 10 min (time frozen or waiting not counted); ask for more with AGENTRM_INTENT="timeout=20m"; slowed for memory: throttled 8 s; used 115 MiB of memory.high 115 MiB; ask for more with AGENTRM_INTENT="memory.high=144M"',
    ],
    [
      'stuck at its memory.max',
      { killCode: 'memory-max', peakBytes: 128 * MIB },
      'killed for memory: stuck at its memory.max 128 MiB (peak 128 MiB); ask for more with AGENTRM_INTENT="memory.max=256M"',
    ],
    [
      'a host without memory',
      { killCode: 'host-memory', peakBytes: 117 * MIB, frozenMs: 10_012 },
      'killed for memory: the host had none left to lend (used 117 MiB, frozen 10 s); run it again when less else runs, or make it smaller',
    ],
    [
      'its timeout',
      { killCode: 'timeout' },
      'killed: ran longer than its timeout of 10 min (time frozen or waiting not counted); ask for more with AGENTRM_INTENT="timeout=20m"',
    ],
    ['the end of its session', { killCode: 'session-end' }, 'killed: its session has ended'],
    ['the end of its wrapper', { killCode: 'wrapper-lost' }, 'killed: its wrapper was killed'],
    ['an operator', { killCode: 'operator' }, 'killed by the operator of this host'],
    [
      'frozen and lent to',
      { frozenMs: 412, throttledMs: 1_234, peakBytes: 310 * MIB, lentBytes: 250 * MIB },
      'slowed for memory: frozen 0.4 s, throttled 1.2 s; used 310 MiB of memory.high 115 MiB (250 MiB lent); ask for more with AGENTRM_INTENT="memory.high=416M"',
    ],
    [
      'frozen, and held up for memory where nobody sees for which limit',
      { frozenMs: 412, throttledMs: 1_234, throttledBy: 'pressure', peakBytes: 90 * MIB, poolShort: true },
      'slowed for memory: frozen 0.4 s while the host was short of it, stalled 1.2 s; used 90 MiB of memory.high 115 MiB',
    ],
    [
      'held up for memory where nobody sees for which limit, after its own memory.high',
      { throttledMs: 1_234, throttledBy: 'pressure', highEvents: 1, peakBytes: 116 * MIB },
      'slowed for memory: stalled 1.2 s; used 116 MiB of memory.high 115 MiB; ask for more with AGENTRM_INTENT="memory.high=160M"',
    ],
    [
      'held up for memory, but for no limit that is known',
      { throttledMs: 8_000, throttledBy: 'pressure' },
      null,
    ],
    [
      'throttled only, near the ceiling',
      { throttledMs: 300, peakBytes: 116 * MIB, ceilingBytes: 130 * MIB },
      'slowed for memory: throttled 0.3 s; used 116 MiB of memory.high 115 MiB; ask for more with AGENTRM_INTENT="memory.high=130M"',
    ],
    [
      'throttled at exactly its memory.high',
      { throttledMs: 300, frozenMs: 1, peakBytes: 115 * MIB },
      'slowed for memory: frozen 1 ms, throttled 0.3 s; used 115 MiB of memory.high 115 MiB; ask for more with AGENTRM_INTENT="memory.high=144M"',
    ],
    [
      'frozen for the sake of others',
      { frozenMs: 3_000, peakBytes: 50 * MIB },
      'slowed for memory: frozen 3 s while the host was short of it; used 50 MiB of memory.high 115 MiB',
    ],
    [
      'frozen while the pool had nothing to lend',
      { frozenMs: 8_000, peakBytes: 310 * MIB, lentBytes: 250 * MIB, poolShort: true },
      'slowed for memory: frozen 8 s while the host was short of it; used 310 MiB of memory.high 115 MiB (250 MiB lent); ask for more with AGENTRM_INTENT="memory.high=416M"',
    ],
    ['a wait', { admissionWaitMs: 3_200 }, 'waited 3.2 s for memory before it started'],
    [
      'one refused fork',
      { pidsMaxHits: 1 },
      'reached its pids.max 512: 1 fork refused; ask for more with AGENTRM_INTENT="pids.max=1024"',
    ],
    [
      "forks that somebody else's limit refused",
      { pidsMaxHits: 3, pidsMaxOwn: false },
      '3 forks refused by a limit that is not its own (its pids.max is 512)',
    ],
    [
      'one process left',
      { leftovers: 1 },
      '1 process left running in the background, within the same limits',
    ],
    [
      'processes left and killed',
      { leftovers: 2, leftoversKept: false },
      '2 processes left in the background, killed',
    ],
    [
      'leftovers that were killed are no kill of the command',
      { killCode: 'leftover', leftovers: 2, leftoversKept: false },
      '2 processes left in the background, killed',
    ],
    [
      'several things at once',
      { admissionWaitMs: 1_000, frozenMs: 1_000, leftovers: 1 },
      'slowed for memory: frozen 1 s while the host was short of it; used 20 MiB of memory.high 115 MiB; waited 1 s for memory before it started; 1 process left running in the background, within the same limits',
    ],
  ];
  for (const [what, given, line] of lines) {
    test(what, () => {
      assert.equal(reportLine(facts(given), settings), line === null ? null : `agentrm: ${line}`);
    });
  }

  test('does not take the sum over sixteen tasks for time that the call has lost', () => {
    assert.equal(reportLine(facts({ throttledMs: 4_000, durationMs: 200 }), settings), null);
  });

  const natural = (max: number) => fc.integer({ min: 0, max });
  const endings: fc.Arbitrary<CallFacts> = fc
    .record({
      killCode: fc.constantFrom(null, ...KILL_CODES),
      highBytes: fc.integer({ min: MIB, max: 2 ** 42 }),
      aboveBytes: fc.oneof(natural(2 ** 42), fc.constant(Infinity)),
      ceilingAboveBytes: fc.oneof(natural(2 ** 42), fc.constant(Infinity)),
      peakBytes: natural(2 ** 43),
      throttledMs: natural(1e9),
      frozenMs: natural(1e9),
      admissionWaitMs: natural(10_000),
      durationMs: natural(1e9),
      oomEvents: natural(3),
      oomKills: natural(5),
      pidsMaxHits: natural(1e6),
      pidsMaxOwn: fc.boolean(),
      poolShort: fc.boolean(),
      shellLived: fc.boolean(),
      oomEventsBelow: natural(3),
      pidsMax: fc.integer({ min: 1, max: 4_194_304 }),
      timeoutMs: fc.option(fc.integer({ min: 1, max: 2 ** 31 - 1 })),
      lentBytes: natural(2 ** 42),
      leftovers: natural(10_000),
      leftoversKept: fc.boolean(),
    })
    .map(({ highBytes, aboveBytes, ceilingAboveBytes, pidsMax, timeoutMs, ...given }) => {
      const memoryMaxBytes = highBytes + aboveBytes;
      const limits = { ...quiet.limits, memoryHighBytes: highBytes, memoryMaxBytes, pidsMax, timeoutMs };
      return facts({ ...given, limits, ceilingBytes: memoryMaxBytes + ceilingAboveBytes });
    });

  test('is one printable line of bounded length, whatever the facts', () => {
    fc.assert(
      fc.property(endings, (ending) => {
        const line = reportLine(ending, settings);
        if (line === null) return;
        assert.match(line, /^agentrm: [\x20-\x7e]+$/);
        assert.ok(line.length <= 600, line);
        assert.doesNotMatch(line, /NaN|undefined|null|Infinity/);
      }),
    );
  });

  test('advises only intents that are read back and stay under the ceiling', () => {
    fc.assert(
      fc.property(endings, (ending) => {
        const { advice, line } = reportOf(ending, settings) ?? { advice: null, line: null };
        if (advice === null) return;
        const parsed = parseIntent(advice);
        assert.ok(parsed.ok, parsed.ok ? '' : `${advice}: ${parsed.reason}`);
        assert.ok((parsed.intent.memoryMaxBytes ?? 0) <= ending.ceilingBytes);
        assert.ok((parsed.intent.memoryHighBytes ?? 0) <= ending.ceilingBytes);
        for (const word of advice.split(' ')) assert.ok(line?.includes(word));
      }),
    );
  });

  test('tells of every kill', () => {
    fc.assert(
      fc.property(endings, (ending) => {
        const line = reportLine(ending, settings);
        assert.equal(line?.startsWith('agentrm: killed') ?? false, ending.outcome !== 'ok');
      }),
    );
  });
});

describe('reportOf', () => {
  test('is null if there is nothing to tell', () => {
    assert.equal(reportOf(quiet, settings), null);
  });

  test('has what the line has, in figures', () => {
    const ending = facts({ ...oom, pidsMaxHits: 2 });
    assert.deepEqual(reportOf(ending, settings), {
      line: reportLine(ending, settings),
      advice: 'memory.max=256M pids.max=1024',
      killCode: null,
      admissionWaitMs: 0,
      lentBytes: 0,
      pidsMaxHits: 2,
      leftovers: 0,
      leftoversKept: true,
    });
  });

  test('survives JSON', () => {
    const unlimited = { ...quiet.limits, memoryHighBytes: Infinity, memoryMaxBytes: Infinity };
    const report = reportOf(facts({ ...oom, limits: unlimited, ceilingBytes: Infinity }), settings);
    assert.ok(report !== null);
    assert.deepEqual(JSON.parse(JSON.stringify(report)), report);
  });
});

describe('intentLine', () => {
  for (const refused of [false, true]) {
    test(`names the word ${refused ? 'when the command is refused' : 'when defaults apply'}`, () => {
      const bad = parseIntent('memory.high=1G memory:a[$(id)0]g');
      assert.ok(!bad.ok);
      assert.equal(
        intentLine(bad, refused),
        `agentrm: bad AGENTRM_INTENT: "memory:a[$(id)0]g": not key=value; ${
          refused ? 'the command was not run' : 'it is ignored, the defaults apply'
        }`,
      );
    });
  }
});
