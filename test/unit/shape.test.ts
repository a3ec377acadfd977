// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fields, flag, list, number, oneOf, orNull, type Shape, text, whole } from '../../daemon/shape.ts';

const point = fields(
  { x: number, label: orNull(text(3)) },
  { tags: list(oneOf('a', 'b'), 2), on: flag, size: whole(1, 9) },
);

test('what looks as it should is given back with what is known of it, and without the rest', () => {
  const bare = { x: 1.5, label: null };
  const full = { x: -1, label: 'abc', tags: ['a', 'b'], on: false, size: 9 };
  assert.deepEqual(point(bare), bare);
  assert.deepEqual(point(full), full);
  assert.deepEqual(point({ ...full, more: 1 }), full);
  assert.deepEqual(point(JSON.parse('{"x":1.5,"label":null,"__proto__":{"on":true}}')), bare);
});

for (const [what, json] of [
  ['no object', 'null'],
  ['a list', '[]'],
  ['a string', '"x"'],
  ['a field that is missing', '{"x":1}'],
  ['a number that is none', '{"x":"1","label":null}'],
  ['a number without end', '{"x":1e999,"label":null}'],
  ['a text that is too long', '{"x":1,"label":"abcd"}'],
  ['null where it may not be', '{"x":null,"label":null}'],
  ['null for what may be left out', '{"x":1,"label":null,"on":null}'],
  ['a list that is too long', '{"x":1,"label":null,"tags":["a","a","a"]}'],
  ['a word that is not known in a list', '{"x":1,"label":null,"tags":["a","c"]}'],
  ['an object in the place of a list', '{"x":1,"label":null,"tags":{"length":0}}'],
  ['half of a whole number', '{"x":1,"label":null,"size":1.5}'],
  ['a whole number below the least', '{"x":1,"label":null,"size":0}'],
  ['a whole number above the most', '{"x":1,"label":null,"size":10}'],
] as const) {
  test(`not taken: ${what}`, () => {
    assert.equal(point(JSON.parse(json)), undefined);
  });
}

test('no name of a field is taken for what every object has', () => {
  const shape: Shape<unknown> = fields({}, { constructor: text(), toString: text() });
  assert.deepEqual(Object.keys(shape({}) as object), []);
  assert.equal(shape({ constructor: 1 }), undefined);
});

test('any JSON is taken or not, and what is taken once is taken again as it is', () => {
  const near = fc.record(
    {
      x: fc.oneof(fc.double(), fc.string()),
      label: fc.option(fc.string({ maxLength: 4 })),
      tags: fc.array(fc.constantFrom('a', 'b', 'c')),
    },
    { requiredKeys: ['x'] },
  );
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), near), (value) => {
      const known = point(value);
      if (known !== undefined) assert.deepEqual(point(known), known);
    }),
  );
});
