// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configSchema } from '../../daemon/config/schema.ts';
import { hostDefaults, hostSettings } from '../../daemon/policy/host.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

function config(values: object) {
  return configSchema(() => undefined).parse(values);
}

describe('hostDefaults', () => {
  const reserves: readonly (readonly [memTotal: number, reserve: number])[] = [
    [GIB, GIB / 4],
    [4 * GIB, GIB],
    [8 * GIB, 1.8 * GIB],
    [16 * GIB, 2.6 * GIB],
    [64 * GIB, 5.48 * GIB],
    [256 * GIB, 11.88 * GIB],
  ];
  for (const [memTotalBytes, reserve] of reserves) {
    test(`reserves ${reserve / GIB} GiB of ${memTotalBytes / GIB}`, () => {
      const { reserveBytes, budgetBytes } = hostDefaults({ memTotalBytes });
      assert.ok(Math.abs(reserveBytes - reserve) <= 4096);
      assert.equal(reserveBytes + budgetBytes, memTotalBytes);
    });
  }

  const highs: readonly (readonly [memTotal: number, high: number])[] = [
    [256 * MIB, 172.8 * MIB],
    [GIB, 384 * MIB],
    [4 * GIB, 1536 * MIB],
    [16 * GIB, 4 * GIB],
    [512 * GIB, 4 * GIB],
  ];
  for (const [memTotalBytes, high] of highs) {
    test(`gives an unsized call ${high / MIB} MiB on a host of ${memTotalBytes / MIB} MiB`, () => {
      assert.ok(Math.abs(hostDefaults({ memTotalBytes }).memoryHighBytes - high) <= 4096);
    });
  }

  test('grows with the host, and always leaves room beside one call', () => {
    const sizes = fc.integer({ min: 64 * MIB, max: 2 ** 44 });
    fc.assert(
      fc.property(sizes, sizes, (a, b) => {
        const small = hostDefaults({ memTotalBytes: Math.min(a, b) });
        const large = hostDefaults({ memTotalBytes: Math.max(a, b) });
        for (const name of ['reserveBytes', 'keepAvailableBytes', 'memoryHighBytes'] as const) {
          assert.ok(small[name] <= large[name], name);
        }
        assert.ok(large.memoryHighBytes < large.budgetBytes);
        assert.ok(large.keepAvailableBytes < large.reserveBytes);
      }),
    );
  });
});

describe('hostSettings', () => {
  const host = { memTotalBytes: 16 * GIB };

  test('fills in what the configuration leaves to the host', () => {
    const settings = hostSettings(config({}), host);
    const derived = hostDefaults(host);
    assert.deepEqual(settings.pool, {
      budgetBytes: derived.budgetBytes,
      keepAvailableBytes: derived.keepAvailableBytes,
    });
    assert.equal(settings.reserveBytes, derived.reserveBytes);
    assert.equal(settings.guessedHighBytes, derived.memoryHighBytes);
    assert.equal(settings.defaults.pidsMax, 4096);
    assert.deepEqual(settings.ceilingFor(1000), { memoryMaxBytes: derived.budgetBytes });
  });

  test('derives from what is configured', () => {
    const reserved = hostSettings(config({ pool: { reserve: '8G' } }), host);
    assert.deepEqual(reserved.pool, { budgetBytes: 8 * GIB, keepAvailableBytes: 2 * GIB });
    const budgeted = hostSettings(config({ pool: { budget: '1100M', keepAvailable: '10M' } }), host);
    assert.deepEqual(budgeted.pool, { budgetBytes: 1100 * MIB, keepAvailableBytes: 10 * MIB });
    assert.equal(budgeted.guessedHighBytes, 550 * MIB);
    const all = hostSettings(config({ pool: { budget: 'max' } }), host);
    assert.equal(all.pool.budgetBytes, host.memTotalBytes);
    assert.equal(budgeted.ceilingFor(0).memoryMaxBytes, 1100 * MIB);
  });

  test('never has a negative pool', () => {
    assert.equal(hostSettings(config({ pool: { reserve: '64G' } }), host).pool.budgetBytes, 0);
  });

  test('guesses no memory.high beside defaults that size a call', () => {
    for (const words of ['memory.high=1G', 'memory.max=1G']) {
      assert.equal(hostSettings(config({ defaults: words }), host).guessedHighBytes, undefined);
    }
  });

  test('puts the ceiling of a user over the general one, field by field', () => {
    const { ceilingFor } = hostSettings(
      config({
        ceiling: 'memory.max=4G pids.max=100',
        ceilings: [
          { uid: '1000', limits: 'memory.max=8G' },
          { uid: '1000', limits: 'memory.max=1G' },
        ],
      }),
      host,
    );
    assert.deepEqual(ceilingFor(1000), { memoryMaxBytes: 8 * GIB, pidsMax: 100 });
    assert.deepEqual(ceilingFor(1001), { memoryMaxBytes: 4 * GIB, pidsMax: 100 });
  });
});
