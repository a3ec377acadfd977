// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { matchRule } from '../../daemon/policy/rules.ts';

function matches(pattern: string, command: string): boolean {
  return matchRule([{ command: pattern, intent: {} }], command) !== null;
}

describe('matchRule', () => {
  const found: readonly (readonly [pattern: string, command: string])[] = [
    ['npm install', 'npm install'],
    ['npm install', 'npm install --save left-pad'],
    ['npm install', 'cd x && npm install'],
    ['npm install', "source /tmp/snap.sh && eval 'npm install' \\< /dev/null && pwd -P >| /tmp/cwd"],
    ['npm install', '(npm install)'],
    ['npm install', 'A=1 npm install;ls'],
    ['npm install', 'x\nnpm install\ny'],
    ['npm*install', 'npm --prefix a install'],
    ['npm install*', 'npm installation'],
    ['*install', 'reinstall'],
    ['cargo build*--release', 'cargo build -j 4 --release'],
    ['make *', 'make -j'],
    ['a*b*c', 'a x b x c'],
    ['a*a', 'a a'],
    ['*b*', 'abc'],
    ['ab*ab', 'abab xab ab'],
  ];
  for (const [pattern, command] of found) {
    test(`finds ${pattern} in ${JSON.stringify(command)}`, () => assert.ok(matches(pattern, command)));
  }

  const absent: readonly (readonly [pattern: string, command: string])[] = [
    ['npm install', ''],
    ['npm install', 'pnpm install'],
    ['npm install', 'npm installer'],
    ['npm install', 'npm  install'],
    ['npm install', './npm install'],
    ['npm', 'npm.js'],
    ['npm', 'npm/x'],
    ['npm', 'x-npm'],
    ['NPM', 'npm'],
    ['cargo build*--release', 'cargo --release build'],
    ['a*a', 'a'],
    ['a?b', 'axb'],
    ['[ab]', 'a'],
  ];
  for (const [pattern, command] of absent) {
    test(`does not find ${pattern} in ${JSON.stringify(command)}`, () =>
      assert.ok(!matches(pattern, command)));
  }

  test('takes the first rule that matches, and null if none does', () => {
    const rules = ['x', 'npm*', 'npm test'].map((command, index) => ({
      command,
      intent: { pidsMax: index },
    }));
    assert.equal(matchRule(rules, 'npm test')?.intent.pidsMax, 1);
    assert.equal(matchRule(rules, 'ls'), null);
    assert.equal(matchRule([], 'ls'), null);
  });

  test('agrees with trying every way to place the pieces', () => {
    // The slow and obvious way; short texts over few letters meet every corner.
    const everywhere = (pieces: string[], text: string, from: number, first: boolean): boolean => {
      const [piece, ...rest] = pieces;
      if (piece === undefined) return true;
      for (let at = from; at <= text.length - piece.length; at++) {
        if (!text.startsWith(piece, at)) continue;
        const border = (place: number) => !/^\w\w$/.test(text.slice(place - 1, place + 1)) || place === 0;
        if (piece !== '' && first && !border(at)) continue;
        if (piece !== '' && rest.length === 0 && !border(at + piece.length)) continue;
        if (everywhere(rest, text, at + piece.length, false)) return true;
      }
      return false;
    };
    const text = fc.string({ unit: fc.constantFrom('a', 'b', ' '), maxLength: 12 });
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*', ' '), minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(pattern, text, (glob, command) => {
        assert.equal(matches(glob, command), everywhere(glob.split('*'), command, 0, true));
      }),
      { numRuns: 5_000 },
    );
  });

  test('takes time linear in the length of the command, whatever the pattern', () => {
    const time = (pattern: string, length: number): number => {
      const command = 'a'.repeat(length);
      let best = Number.POSITIVE_INFINITY;
      for (let run = 0; run < 5; run++) {
        const startedAt = performance.now();
        matches(pattern, command);
        best = Math.min(best, performance.now() - startedAt);
      }
      return best;
    };
    for (const pattern of ['a*a*a*a*a*a*a*a*b', '*aaaaaaaaaaaaaaaaaaaab', 'a b*', '*a']) {
      const short = time(pattern, 2 ** 12);
      const long = time(pattern, 2 ** 16);
      // Sixteen times the text; the factor 8 is for noise, 0.2 ms for the clock.
      assert.ok(long <= 16 * 8 * Math.max(short, 0.2), `${pattern}: ${short} ms, then ${long} ms`);
    }
  });
});
