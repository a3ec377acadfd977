// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { commandText } from '../../daemon/command-text.ts';

const cases: [command: string, kept: string][] = [
  ['python3 big.py --token abc', 'python3'],
  ['/home/alice/clients/acme/bin/deploy now', 'deploy'],
  ['TOKEN=hunter2 curl -s example.com', 'curl'],
  ['TOKEN="hunter2 and more" curl', 'curl'],
  [`A='x'\\''hunter2 y' B=1 make -j`, 'make'],
  ['A=x\\ hunter2 make', 'make'],
  ['a[0]=1 b+=2 make', 'make'],
  ['HOME=$HOME/x make', 'make'],
  ['TOKEN=$(cat hunter2) curl', '?'],
  ['TOKEN=`cat hunter2` curl', '?'],
  ['TOKEN="$(echo "hunter2")" curl', '?'],
  ['TOKEN="hunter2', '?'],
  ['TOKEN=hunter2', '?'],
  ['words=(hunter2 hunter3) make', '?'],
  ['  \n\t ls', 'ls'],
  ['# hunter2\nls', 'ls'],
  ['(cd x; ls)', 'cd'],
  ['{ ls; }', 'ls'],
  ['! grep x', 'grep'],
  ['"my prog" x', 'my'],
  ["'ls'", 'ls'],
  ['ls;rm hunter2', 'ls'],
  ['cat<<EOF\nhunter2\nEOF', 'cat'],
  ['user:hunter2@host/path', '?'],
  ['$(hunter2)', '?'],
  ['`hunter2`', '?'],
  ['> /tmp/hunter2 ls', '?'],
  ['ls\x1b]0;hunter2\x07', '?'],
  ['ls\0hunter2', '?'],
  ['lś hunter2', '?'],
  ['\u202els', '?'],
  ['bin/', '?'],
  ['', '?'],
  ['   ', '?'],
];

for (const [command, kept] of cases) {
  test(`first word of ${JSON.stringify(command)} is ${kept}`, () => {
    assert.equal(commandText(command, 'firstWord'), kept);
  });
}

test('a mebibyte of text gives a short name', () => {
  for (const unit of ['a', 'A=1 ', "A='", 'A="\\', '(', '#\n', 'A=$']) {
    const kept = commandText(unit.repeat(1024 * 1024), 'firstWord');
    assert.ok(kept.length <= 64);
  }
});

test('whatever the text, what is kept is short, printable and a part of it', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: fc.constantFrom(...`A= '"\\$(\`;/\n#x`) })),
      (text) => {
        const kept = commandText(text, 'firstWord');
        assert.match(kept, /^(\?|[\w.+~-]{1,64})$/);
        assert.ok(kept === '?' || text.includes(kept));
      },
    ),
    { numRuns: 2000 },
  );
});

test('a quoted assignment never shows its value', () => {
  const secret = fc.string({ unit: fc.constantFrom(...'secrt 123;|&<>()[]{}!#\n') });
  fc.assert(
    fc.property(secret, fc.constantFrom('single', 'double'), (value, quote) => {
      const quoted = quote === 'single' ? `'${value}'` : `"${value}"`;
      assert.equal(commandText(`TOKEN=${quoted} curl -s x`, 'firstWord'), 'curl');
    }),
  );
});

test('full keeps everything, none nothing', () => {
  assert.equal(commandText('curl -u a:b', 'full'), 'curl -u a:b');
  assert.equal(commandText('curl -u a:b', 'none'), '');
});
