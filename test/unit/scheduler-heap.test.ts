// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Heap } from '../../daemon/scheduler/heap.ts';
import { RecentMap } from '../../daemon/scheduler/recent-map.ts';

interface Item {
  key: number;
  index?: number;
}

type Step =
  | { readonly do: 'push'; readonly key: number }
  | { readonly do: 'pop' }
  | { readonly do: 'remove'; readonly which: number }
  | { readonly do: 'move'; readonly which: number; readonly key: number }
  | { readonly do: 'rebuild'; readonly add: number };

const key = fc.integer({ min: 0, max: 20 });
const which = fc.nat();
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('push' as const), key }) },
  { weight: 1, arbitrary: fc.constant({ do: 'pop' as const }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), which }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('move' as const), which, key }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('rebuild' as const), add: key }) },
);

describe('Heap', () => {
  test('always has the smallest key on top, whatever is added, removed and moved', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const heap = new Heap<'index', Item>('index', (a, b) => a.key < b.key);
        const model: Item[] = [];
        const pick = (index: number) => model[index % model.length];
        for (const one of steps) {
          if (one.do === 'push') {
            const item = { key: one.key };
            heap.push(item);
            model.push(item);
          } else if (one.do === 'pop') {
            const top = heap.pop();
            assert.equal(top === undefined, model.length === 0);
            if (top !== undefined) model.splice(model.indexOf(top), 1);
          } else if (one.do === 'remove') {
            const item = pick(one.which);
            if (item === undefined) continue;
            assert.equal(heap.remove(item), true);
            assert.equal(heap.remove(item), false);
            model.splice(model.indexOf(item), 1);
          } else if (one.do === 'move') {
            const item = pick(one.which);
            if (item === undefined) continue;
            item.key = one.key;
            heap.move(item);
          } else {
            for (const item of model) item.key = (item.key * 7 + one.add) % 20;
            heap.rebuild();
          }
          assert.equal(heap.size, model.length);
          assert.equal(
            heap.peek()?.key,
            model.length === 0 ? undefined : Math.min(...model.map((i) => i.key)),
          );
        }
        const sorted = model.map((item) => item.key).sort((a, b) => a - b);
        assert.deepEqual(
          Array.from(model, () => heap.pop()?.key),
          sorted,
        );
      }),
    );
  });

  test('holds an item once', () => {
    const heap = new Heap<'index', Item>('index', (a, b) => a.key < b.key);
    const item = { key: 1 };
    heap.push(item);
    assert.throws(() => heap.push(item), /already/);
  });
});

describe('RecentMap', () => {
  test('holds what a Map would whose newest entries are written again at each use', () => {
    const name = fc.integer({ min: 0, max: 9 });
    const doing = fc.constantFrom('get' as const, 'peek' as const, 'set' as const, 'delete' as const);
    fc.assert(
      fc.property(fc.array(fc.tuple(doing, name), { maxLength: 100 }), (steps) => {
        const map = new RecentMap<number, number>(5, () => {});
        const model = new Map<number, number>();
        for (const [at, [what, key]] of steps.entries()) {
          const known = model.get(key);
          if (what === 'peek') {
            assert.equal(map.peek(key), known);
          } else if (what === 'delete') {
            assert.equal(map.delete(key), model.delete(key));
          } else {
            const value = what === 'set' ? at : known;
            if (what === 'get') assert.equal(map.get(key), known);
            else map.set(key, at);
            model.delete(key);
            if (value !== undefined) model.set(key, value);
            if (model.size > 5) model.delete(model.keys().next().value as number);
          }
          assert.deepEqual(map.entries(), [...model.entries()]);
          assert.deepEqual(map.values(), [...model.values()]);
          assert.equal(map.size, model.size);
        }
      }),
    );
  });

  test('forgets what was used longest ago, counts it, and keeps what must stay', () => {
    let evicted = 0;
    const map = new RecentMap<string, { busy: boolean }>(
      2,
      () => {
        evicted += 1;
      },
      ({ busy }) => busy,
    );
    map.set('busy', { busy: true });
    map.set('a', { busy: false });
    map.set('b', { busy: false });
    assert.deepEqual([map.peek('a'), evicted], [undefined, 1]);
    map.set('c', { busy: false });
    assert.deepEqual(
      [...map.entries()].map(([name]) => name),
      ['busy', 'c'],
    );
    map.get('busy');
    map.set('d', { busy: true });
    map.set('e', { busy: true });
    assert.deepEqual(
      [...map.entries()].map(([name]) => name),
      ['busy', 'd', 'e'],
      'grows for what is in use',
    );
    assert.equal(evicted, 3);
  });
});
