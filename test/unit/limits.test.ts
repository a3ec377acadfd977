// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type LimitLayers, minCeiling, resolveIntent } from '../../daemon/policy/limits.ts';
import { CALL_CLASSES, type Intent, parseIntent } from '../../daemon/toolcall/intent.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

function intent(text: string): Intent {
  const parsed = parseIntent(text);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.reason);
  return parsed.intent;
}

const usual: LimitLayers = {
  classes: {
    interactive: intent('cpu.weight=100 io.weight=100'),
    subagent: intent('cpu.weight=50 io.weight=50'),
    background: intent('cpu.weight=10 io.weight=10'),
  },
  defaults: intent('memory.high=1G memory.swap.max=0 pids.max=4096'),
  ceiling: intent('memory.max=8G'),
};

function resolve(layers: Partial<LimitLayers>) {
  return resolveIntent({ ...usual, ...layers });
}

describe('resolveIntent', () => {
  test('fills everything in when nobody says anything', () => {
    assert.deepEqual(resolveIntent({ classes: usual.classes, defaults: {}, ceiling: {} }).limits, {
      memoryHighBytes: Infinity,
      highIsGuess: false,
      memoryMaxBytes: Infinity,
      swapMaxBytes: 0,
      cpuWeight: 100,
      cpuMax: { quotaUs: Infinity, periodUs: 100_000 },
      ioWeight: 100,
      pidsMax: Infinity,
      timeoutMs: null,
      class: 'interactive',
    });
  });

  test('takes what earlier runs needed for the memory.high of the defaults, and changes no maximum', () => {
    const learnedHighBytes = 300 * MIB;
    const high = (layers: Partial<LimitLayers>) => {
      const { limits, clamped } = resolve({ learnedHighBytes, ...layers });
      assert.deepEqual(clamped, []);
      assert.equal(limits.memoryMaxBytes, resolve(layers).limits.memoryMaxBytes);
      return limits.memoryHighBytes;
    };
    assert.equal(high({}), learnedHighBytes);
    assert.equal(high({ defaults: {} }), learnedHighBytes);
    assert.equal(high({ defaults: intent('memory.max=2G') }), learnedHighBytes);
    // No more than fits below the maximum, or than is allowed.
    assert.ok(high({ defaults: intent('memory.max=200M') }) < 200 * MIB);
    assert.equal(high({ ceiling: intent('memory.max=8G memory.high=100M') }), 100 * MIB);
    // Whoever says something about memory knows better.
    for (const text of ['memory.high=1G', 'memory.max=100M', 'memory.high=max']) {
      for (const layer of ['perCall', 'rule', 'agent'] as const) {
        const layers = { [layer]: intent(text) };
        assert.equal(high(layers), resolve(layers).limits.memoryHighBytes);
      }
    }
    const classes = { ...usual.classes, interactive: intent('memory.high=1G') };
    assert.equal(high({ classes }), GIB);
    assert.equal(high({ perCall: intent('timeout=1m') }), learnedHighBytes);
  });

  test('knows a memory.high that nobody asked for', () => {
    const guessedHighBytes = 300 * MIB;
    const memory = (layers: Partial<LimitLayers>) => {
      const { memoryHighBytes, highIsGuess } = resolve({ defaults: {}, guessedHighBytes, ...layers }).limits;
      return [memoryHighBytes, highIsGuess];
    };
    assert.deepEqual(memory({}), [300 * MIB, true]);
    assert.deepEqual(memory({ learnedHighBytes: 200 * MIB }), [200 * MIB, true]);
    assert.deepEqual(memory({ perCall: intent('timeout=1m') }), [300 * MIB, true]);
    assert.deepEqual(memory({ ceiling: intent('memory.high=100M') }), [100 * MIB, false]);
    for (const layer of ['perCall', 'rule', 'agent', 'defaults'] as const) {
      assert.deepEqual(memory({ [layer]: intent('memory.high=64M') }), [64 * MIB, false], layer);
    }
    assert.equal(memory({ perCall: intent('memory.max=1G') })[1], false);
  });

  test('takes each field from the first that names it', () => {
    const { limits } = resolve({
      perCall: intent('timeout=1m'),
      rule: intent('timeout=2m pids.max=100'),
      agent: intent('timeout=3m pids.max=200 cpu.weight=7'),
      sessionClass: 'background',
      defaults: intent('timeout=4m pids.max=300 cpu.weight=8 io.weight=9 memory.swap.max=1M'),
    });
    assert.equal(limits.timeoutMs, 60_000);
    assert.equal(limits.pidsMax, 100);
    assert.equal(limits.cpuWeight, 7);
    assert.equal(limits.ioWeight, 10);
    assert.equal(limits.swapMaxBytes, MIB);
    assert.equal(limits.class, 'background');
  });

  const classOrder: readonly (readonly [Partial<LimitLayers>, string])[] = [
    [{}, 'interactive'],
    [{ defaults: intent('class=subagent') }, 'subagent'],
    [{ sessionClass: 'background', defaults: intent('class=subagent') }, 'background'],
    [{ agent: intent('class=subagent'), sessionClass: 'background' }, 'subagent'],
    [{ rule: intent('class=background'), agent: intent('class=subagent') }, 'background'],
    [{ perCall: intent('class=subagent'), rule: intent('class=background') }, 'subagent'],
    [{ perCall: intent('class=interactive'), ceiling: intent('class=subagent') }, 'subagent'],
    [{ perCall: intent('class=background'), ceiling: intent('class=subagent') }, 'background'],
  ];
  for (const [layers, expected] of classOrder) {
    test(`class of ${JSON.stringify(layers)} is ${expected}`, () => {
      assert.equal(resolve(layers).limits.class, expected);
    });
  }

  const memory: readonly (readonly [words: string, high: number, max: number, clamped: readonly string[]])[] =
    [
      ['', GIB, 8 * GIB, []],
      ['memory.high=64M', 64 * MIB, 8 * GIB, []],
      ['memory.high=64M memory.max=128M', 64 * MIB, 128 * MIB, []],
      ['memory.high=128M memory.max=128M', 128 * MIB, 128 * MIB, []],
      ['memory.max=1000000K', 921_600_000, 1_024_000_000, []],
      ['memory.max=max', 7_730_941_132 - (7_730_941_132 % 4096), 8 * GIB, []],
      ['memory.high=max', 7_730_941_132 - (7_730_941_132 % 4096), 8 * GIB, []],
      ['memory.max=9G', 7_730_941_132 - (7_730_941_132 % 4096), 8 * GIB, ['memory.max 9 GiB to 8 GiB']],
      ['memory.high=1G memory.max=9G', GIB, 8 * GIB, ['memory.max 9 GiB to 8 GiB']],
      ['memory.high=9G', 7_730_941_132 - (7_730_941_132 % 4096), 8 * GIB, ['memory.high 9 GiB to 7.2 GiB']],
      ['memory.max=512', 942_080, MIB, ['memory.max 512 B to 1 MiB']],
      ['memory.high=512', MIB, 8 * GIB, ['memory.high 512 B to 1 MiB']],
    ];
  for (const [words, high, max, clamped] of memory) {
    test(`"${words}" under a ceiling of 8 GiB`, () => {
      const resolved = resolve({ perCall: intent(words) });
      assert.deepEqual(
        [resolved.limits.memoryHighBytes, resolved.limits.memoryMaxBytes, resolved.clamped],
        [high, max, clamped],
      );
      assert.equal(resolved.ceilingBytes, 8 * GIB);
    });
  }

  test('takes memory.high and memory.max as a pair from one layer', () => {
    const { limits } = resolve({ perCall: intent('memory.max=2G'), rule: intent('memory.high=3G') });
    assert.equal(limits.memoryMaxBytes, 2 * GIB);
    assert.ok(limits.memoryHighBytes < 2 * GIB);
  });

  test('clamps every field and says so', () => {
    const { limits, clamped } = resolve({
      perCall: intent(
        'memory.max=4G memory.swap.max=1G cpu.weight=300 cpu.max=400% io.weight=200 pids.max=900 timeout=2h class=interactive',
      ),
      ceiling: intent(
        'memory.high=512M memory.max=2G memory.swap.max=1M cpu.weight=50 cpu.max=150% io.weight=20 pids.max=90 timeout=1h class=background',
      ),
    });
    assert.deepEqual(limits, {
      memoryHighBytes: 512 * MIB,
      highIsGuess: false,
      memoryMaxBytes: 2 * GIB,
      swapMaxBytes: MIB,
      cpuWeight: 50,
      cpuMax: { quotaUs: 150_000, periodUs: 100_000 },
      ioWeight: 20,
      pidsMax: 90,
      timeoutMs: 3_600_000,
      class: 'background',
    });
    assert.deepEqual([...clamped].sort(), [
      'class interactive to background',
      'cpu.max 400% to 150%',
      'cpu.weight 300 to 50',
      'io.weight 200 to 20',
      'memory.max 4 GiB to 2 GiB',
      'memory.swap.max 1 GiB to 1 MiB',
      'pids.max 900 to 90',
      'timeout 2 h to 1 h',
    ]);
  });

  test('idle is below every weight', () => {
    const { limits, clamped } = resolve({
      perCall: intent('cpu.weight=1'),
      ceiling: intent('cpu.weight=idle'),
    });
    assert.equal(limits.cpuWeight, 0);
    assert.deepEqual(clamped, ['cpu.weight 1 to idle']);
  });

  test('says nothing about what is just within the ceiling', () => {
    const words =
      'memory.high=1G memory.max=2G memory.swap.max=1M cpu.weight=5 cpu.max=50% pids.max=9 timeout=1h';
    assert.deepEqual(resolve({ perCall: intent(words), ceiling: intent(words) }).clamped, []);
  });

  test('gives a ceiling without a word to who asked for nothing or for max', () => {
    const { limits, clamped } = resolve({
      perCall: intent('pids.max=max memory.max=max cpu.max=max'),
      ceiling: intent('pids.max=50 memory.max=1G cpu.max=50% timeout=1m'),
    });
    assert.equal(limits.pidsMax, 50);
    assert.equal(limits.timeoutMs, 60_000);
    assert.deepEqual(clamped, []);
  });

  const sizes = fc.integer({ min: 1, max: 2 ** 42 });
  const intents: fc.Arbitrary<Intent> = fc
    .record(
      {
        memoryHighBytes: sizes,
        memoryMaxBytes: sizes,
        swapMaxBytes: sizes,
        cpuWeight: fc.integer({ min: 1, max: 10_000 }),
        ioWeight: fc.integer({ min: 1, max: 10_000 }),
        pidsMax: fc.integer({ min: 1, max: 4_194_304 }),
        timeoutMs: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
        class: fc.constantFrom(...CALL_CLASSES),
      },
      { requiredKeys: [] },
    )
    .filter((one) => (one.memoryHighBytes ?? 0) <= (one.memoryMaxBytes ?? Infinity));

  test('never exceeds a ceiling, never puts high over max, never leaves less than a shell needs', () => {
    fc.assert(
      fc.property(intents, intents, intents, intents, (perCall, rule, agent, given) => {
        const ceiling = { ...given, memoryMaxBytes: Math.max(MIB, given.memoryMaxBytes ?? GIB) };
        const { limits } = resolve({ perCall, rule, agent, ceiling });
        assert.ok(limits.memoryMaxBytes <= ceiling.memoryMaxBytes);
        assert.ok(limits.memoryHighBytes <= limits.memoryMaxBytes);
        assert.ok(limits.memoryMaxBytes >= MIB);
        assert.ok(limits.memoryHighBytes > 0);
        for (const name of ['memoryHighBytes', 'swapMaxBytes', 'cpuWeight', 'ioWeight', 'pidsMax'] as const) {
          assert.ok(limits[name] <= (ceiling[name] ?? Infinity), name);
        }
        assert.ok((limits.timeoutMs ?? 0) <= (ceiling.timeoutMs ?? Infinity));
        if (ceiling.class !== undefined) {
          assert.ok(CALL_CLASSES.indexOf(limits.class) >= CALL_CLASSES.indexOf(ceiling.class));
        }
      }),
    );
  });

  test('gives the per-call intent as it is where no ceiling stands against it', () => {
    fc.assert(
      fc.property(intents, intents, (perCall, rule) => {
        const { limits, clamped } = resolveIntent({ ...usual, perCall, rule, ceiling: {} });
        if (clamped.length > 0) return;
        for (const [name, value] of Object.entries(perCall)) {
          assert.deepEqual(limits[name as keyof typeof limits], value, name);
        }
      }),
    );
  });
});

describe('minCeiling', () => {
  test('is the lower of both in every field, whichever has it', () => {
    assert.deepEqual(
      minCeiling(
        intent('memory.max=4G pids.max=10 cpu.max=200% class=subagent timeout=1m'),
        intent('memory.max=1G pids.max=20 cpu.max=50% class=background io.weight=5'),
      ),
      intent('memory.max=1G pids.max=10 cpu.max=50% class=background timeout=1m io.weight=5'),
    );
  });

  test('leaves out what neither names', () => assert.deepEqual(minCeiling({}, {}), {}));
});
