// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LineReader, MAX_LINE_BYTES, parseMessage } from '../../daemon/control/protocol.ts';

/** What a reader makes of these chunks. */
function read(chunks: readonly Buffer[]): { lines: string[]; overflows: number } {
  const lines: string[] = [];
  let overflows = 0;
  const reader = new LineReader(
    (line) => lines.push(line),
    () => {
      overflows += 1;
    },
  );
  for (const chunk of chunks) reader.push(chunk);
  return { lines, overflows };
}

/** Cuts bytes at these places, in whatever order they are. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

test('lines are the same however the stream is cut, also within a character', () => {
  const line = fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\n', ''));
  fc.assert(
    fc.property(fc.array(line), line, fc.array(fc.nat()), (lines, rest, places) => {
      const bytes = Buffer.from([...lines.map((text) => `${text}\n`), rest].join(''));
      const expected = lines.map((text) => Buffer.from(text).toString());
      assert.deepEqual(read(cut(bytes, places)), { lines: expected, overflows: 0 });
    }),
  );
});

test('any bytes are lines or half of one', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.array(fc.nat()), (bytes, places) => {
      const { lines } = read(cut(Buffer.from(bytes), places));
      assert.equal(lines.length, bytes.filter((byte) => byte === 10).length);
      for (const line of lines) parseMessage(line);
    }),
  );
});

test('the longest line passes, one byte more does not, however it comes', () => {
  const cuts = fc.array(fc.nat(), { maxLength: 20 });
  const long = Buffer.from(`${'x'.repeat(MAX_LINE_BYTES)}\n`);
  const longer = Buffer.from(`${'x'.repeat(MAX_LINE_BYTES + 1)}\n`);
  fc.assert(
    fc.property(cuts, (places) => {
      assert.equal(read(cut(long, places)).lines[0]?.length, MAX_LINE_BYTES);
      const { lines, overflows } = read(cut(longer, places));
      assert.ok(overflows >= 1);
      assert.ok(lines.every((line) => line.length <= MAX_LINE_BYTES));
    }),
    { numRuns: 50 },
  );
});

test('a message is taken as its sender means it, what else it has is ignored', () => {
  assert.deepEqual(parseMessage('{"op":"run","v":1,"argv":["bash"],"new":true}'), {
    op: 'run',
    v: 1,
    argv: ['bash'],
  });
  assert.deepEqual(parseMessage('{"op":"end","signal":9,"utimeMs":3}'), { op: 'end', signal: 9 });
  assert.deepEqual(parseMessage('{"op":"late"}'), { op: 'late' });
});

for (const line of [
  '',
  'null',
  '[]',
  '"run"',
  '{}',
  '{"op":"run"}',
  '{"op":"run","v":1}',
  '{"op":"run","v":1,"argv":[1]}',
  '{"op":"run","v":1,"argv":[],"clone":"yes"}',
  '{"op":"end","code":256}',
  '{"op":"end","code":-1}',
  '{"op":"end","signal":0}',
  '{"op":"end","code":1.5}',
  '{"op":"place","v":1}',
  '{"op":"adopt","v":1,"call":{}}',
  '{"__proto__":{"op":"late"}}',
]) {
  test(`no message: ${line}`, () => {
    assert.equal(parseMessage(line), undefined);
  });
}
