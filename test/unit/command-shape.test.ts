// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { commandShape } from '../../daemon/command-shape.ts';
import { matchRule } from '../../daemon/policy/rules.ts';

describe('commandShape', () => {
  const shapes: readonly (readonly [command: string, full: string, firstWord: string])[] = [
    ['npm test', 'npm test', 'npm test'],
    ['cd /x && npm test -- a.ts 2>&1 | tail -5', 'npm test --', 'npm test'],
    ['pytest tests/a.py -x --maxfail=3 -k "foo bar"', 'pytest * -x --maxfail=* -k', 'pytest'],
    ['python3 -m pytest -q', 'python3 -m pytest -q', 'python3 -m pytest'],
    ['python3 -m my.own_module', 'python3 -m my.own_module', 'python3 -m'],
    ['python3 train.py --epochs 3', 'python3 * --epochs', 'python3'],
    ['/opt/venv/bin/python3 -m pytest', '*/python3 -m pytest', '*/python3 -m pytest'],
    ['timeout -s KILL 60 make -j8 all', 'make -j*', 'make'],
    ['sudo -u me nice -n 10 cargo build --release', 'cargo build --release', 'cargo build'],
    ['./gradlew build --no-daemon', '*/gradlew build --no-daemon', '*/gradlew build'],
    ['docker compose up -d', 'docker compose up -d', 'docker compose up'],
    ['git commit -m secret', 'git commit -m', 'git commit'],
    ['TOKEN=abc KEY="d e" curl -H "x: $T" http://a', 'curl -H', 'curl'],
    ['npm ci && npm test && npm test', 'npm ci * npm test', 'npm ci * npm test'],
    ['for i in 1 2; do cargo build; done', 'cargo build', 'cargo build'],
    ['if [ -f x ]; then make; else npm ci; fi', 'make * npm ci', 'make * npm ci'],
    ['cat > f <<EOF\nmake $(\nEOF\nnpm run build', 'npm run build', 'npm run build'],
    ["cat > f <<-'E O'\n\tmake '\n\tE O\nnpm ci", 'npm ci', 'npm ci'],
    ['npm test > out 2>/dev/null < in &> x', 'npm test', 'npm test'],
    ['diff <(npm ls) <(cat x)', 'diff', 'diff'],
    ['# make\nnpm test # make', 'npm test', 'npm test'],
    ['npm \\\n  test', 'npm test', 'npm test'],
    ['[[ $a == b && secret == $x ]] && make', 'make', 'make'],
    ['(( a & secret )); make', 'make', 'make'],
    ['echo $(make) `make`', 'echo', 'echo'],
    ['ls -la /tmp', 'ls -la', 'ls'],
    ['$TOOL build; make', '* make', '* make'],
    ['"my tool" build', '', ''],
    ['', '', ''],
    ['> f', '', ''],
    // Where it cannot be told what is data, nothing more is said.
    ['echo "open; secret words', 'echo', 'echo'],
    ['make; echo $(cat <<E\n1) "x; secret"\nE\n); secret', 'make', 'make'],
    ['make; echo "$(case $x in a) echo;; esac)"; secret', 'make', 'make'],
    ['cat <<EOF\nsecret', 'cat', 'cat'],
  ];
  for (const [command, full, firstWord] of shapes) {
    test(JSON.stringify(command), () => {
      assert.deepEqual(
        { full: commandShape(command, 'full'), firstWord: commandShape(command, 'firstWord') },
        { full, firstWord },
      );
    });
  }

  test('there is none where nothing may be kept', () => {
    assert.equal(commandShape('npm test', 'none'), '');
  });

  /** What a user could put anywhere: 16 letters are in no list. */
  const secret = fc.stringMatching(/^[A-Za-z]{16}$/);
  const places = [
    (s: string) => `npm test ${s}`,
    (s: string) => `npm ${s} test`,
    (s: string) => `npm --token ${s} --key=${s} -p${s} test`,
    (s: string) => `${s}=1 X=${s} npm test`,
    (s: string) => `curl 'https://${s}' "${s} \${${s}}" $${s} \\${s} a${s}b`,
    (s: string) => `cat <<X | npm test\n${s} ' "\n${s}\nX\nnpm ci`,
    (s: string) => `npm test > ${s} 2>> ${s} <<< ${s} # ${s}`,
    (s: string) => `X=$(echo "a ) ${s}") npm test -- $(${s} && ${s}) \`${s}\``,
    (s: string) => `git commit -m "$(cat <<'EOF'\n1) don't "${s}"; ${s} x\nEOF\n)" && ${s}`,
    (s: string) => `for x in ${s}; do npm test; done; case ${s} in x) npm ci;; esac`,
    (s: string) => `[[ a = b || ${s} = "$x" ]] && npm test; a=(${s} ${s}) npm ci`,
    (s: string) => `echo '${s}\nnpm test ${s}`,
    (s: string) => `python3 -m ${s} ${s}.py; timeout 10 npm run ${s}`,
    (s: string) => `/home/${s}/bin/make -C /home/${s} ${s}`,
  ];

  test('with firstWord keeps no argument of the user', () => {
    fc.assert(
      fc.property(secret, fc.constantFrom(...places), (word, place) => {
        const shape = commandShape(place(word), 'firstWord');
        assert.ok(!shape.toLowerCase().includes(word.toLowerCase()), `${place(word)}: ${shape}`);
      }),
    );
  });

  test('is the same for other paths, numbers and quoted words', () => {
    const value = fc.oneof(
      fc.nat().map(String),
      fc.stringMatching(/^[a-z]{1,8}(\/[a-z]{1,8}){1,3}$/),
      fc.stringMatching(/^[\w ;&|<>()#*-]{0,20}$/).map((text) => `'${text}'`),
      fc.stringMatching(/^[a-z]{1,8}\.[a-z]{1,3}$/),
    );
    fc.assert(
      fc.property(value, value, (a, b) => {
        const shape = (x: string, y: string) =>
          commandShape(`cd ${x} && tool run ${x} --opt=${y} ${y} -v`, 'full');
        assert.equal(shape(a, b), shape('1', '/2'));
        assert.equal(shape(a, b), 'tool run * --opt=* * -v');
      }),
    );
  });

  test('is a pattern that matches what it was made of', () => {
    const word = fc.constantFrom(
      'test',
      '-x',
      '--opt=3',
      '-j8',
      'a/b',
      "'q w'",
      '17',
      '--',
      'run',
      'x.py',
      '"$A"',
    );
    const command = fc
      .tuple(
        fc.constantFrom('npm', './gradlew', 'python3 -m', 'X=1 make', 'sudo go'),
        fc.array(word, { maxLength: 14 }),
      )
      .map(([program, words]) => [program, ...words].join(' '));
    const list = fc.array(command, { minLength: 1, maxLength: 4 }).map((commands) => commands.join(' && '));
    fc.assert(
      fc.property(list, fc.constantFrom('full' as const, 'firstWord' as const), (text, keep) => {
        const shape = commandShape(text, keep);
        assert.ok(matchRule([{ command: shape, intent: {} }], text), `${shape} for ${text}`);
      }),
    );
  });

  test('is short printable ASCII whatever the text, in time that grows with its length only', () => {
    const piece = fc.constantFrom(
      '(',
      ')',
      '$(',
      '"',
      "'",
      '`',
      '<<',
      'E',
      '\n',
      ' ',
      ';',
      '[[',
      '((',
      '\\',
      '${',
      'é\u0000',
    );
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(piece, { maxLength: 200 }).map((all) => all.join('')),
    );
    fc.assert(
      fc.property(text, fc.constantFrom('full' as const, 'firstWord' as const), (command, keep) => {
        assert.match(commandShape(command, keep), /^(?:[\x21-\x7e](?:[\x20-\x7e]{0,158}[\x21-\x7e])?)?$/);
      }),
    );
    for (const piece of ['"$(', '(', '$(', '`', "'", '<<E\n', '[[ ', 'a=(', '${']) {
      const started = performance.now();
      commandShape(piece.repeat(100_000), 'full');
      // Quadratic would be minutes; the bound on what is scanned makes it milliseconds.
      assert.ok(performance.now() - started < 5_000, piece);
    }
  });
});
