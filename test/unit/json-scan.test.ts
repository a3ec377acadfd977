// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { JsonScan, type Span } from '../../daemon/proxy/json-scan.ts';

/** Scans a text as it would come from a socket, in pieces that end where `cuts` say. */
function scanned(bytes: Buffer, wanted: readonly string[], cuts: readonly number[] = []): JsonScan {
  const scan = new JsonScan(new Set(wanted));
  for (const cut of [...cuts].sort((a, b) => a - b)) scan.scan(bytes, Math.min(cut, bytes.length));
  scan.scan(bytes, bytes.length);
  return scan;
}

const valueAt = (bytes: Buffer, span: Span | undefined): unknown =>
  span === undefined ? undefined : JSON.parse(bytes.toString('utf8', span.start, span.end));

// Strings full of what ends or escapes strings, short and long.
const text = fc.oneof(
  fc.string({
    unit: fc.constantFrom('"', '\\', '{', '}', '[', ']', ',', ':', ' ', 'a', 'é'),
    maxLength: 120,
  }),
  fc.string({ unit: 'binary', maxLength: 60 }),
);
const json = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    text,
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(true, false, null),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(text, tie('value'), { maxKeys: 5, noNullPrototype: true }),
  ),
})).value;

suite('JsonScan', () => {
  test('finds every wanted member and list, wherever the pieces end', () => {
    const member = fc.dictionary(fc.constantFrom('a', 'list', 'x"y', 'ü'), json, { noNullPrototype: true });
    fc.assert(
      fc.property(member, fc.array(fc.nat(400)), fc.constantFrom(0, 1, 3), (object, cuts, indent) => {
        const bytes = Buffer.from(JSON.stringify(object, null, indent));
        const expected = JSON.parse(bytes.toString()) as Record<string, unknown>;
        const scan = scanned(
          bytes,
          ['a', 'list', 'x"y', 'ü'].map((name) => JSON.stringify(name).slice(1, -1)),
          cuts,
        );
        for (const name of ['a', 'list', 'x"y', 'ü']) {
          // Names are as they are written: those of the APIs have no escapes.
          const written = JSON.stringify(name).slice(1, -1);
          assert.deepEqual(valueAt(bytes, scan.member(written)), expected[name]);
          const elements = scan.elements(written).map((span) => valueAt(bytes, span));
          const value = expected[name];
          assert.deepEqual(elements, Array.isArray(value) ? value.slice(-64) : []);
        }
      }),
      { numRuns: 500 },
    );
  });

  test('no text at all breaks it', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat(300)), (array, cuts) => {
        const bytes = Buffer.from(array);
        const whole = scanned(bytes, ['a']);
        const pieces = scanned(bytes, ['a'], cuts);
        assert.deepEqual(pieces.member('a'), whole.member('a'));
      }),
    );
  });

  test('what is no text is told from what is', () => {
    const image = 'iVBORw0KGgo'.repeat(10_000);
    const prose = 'The quick brown fox. '.repeat(10_000);
    const chinese = '敏捷的棕色狐狸'.repeat(10_000);
    const code = 'a();\n'.repeat(10_000);
    const bytes = Buffer.from(JSON.stringify({ image, prose, chinese, code }));
    for (const cuts of [[], Array.from({ length: 60 }, (_, at) => at * 16_384)]) {
      const { opaqueBytes, opaqueStrings } = scanned(bytes, [], cuts);
      assert.equal(opaqueStrings, 1);
      assert.ok(Math.abs(opaqueBytes - image.length) < 2048, `${opaqueBytes}`);
    }
  });
});
