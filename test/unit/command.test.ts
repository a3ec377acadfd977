// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import fc from 'fast-check';
import { commandOf, intentOf } from '../../daemon/toolcall/command.ts';

suite('commandOf', () => {
  for (const [argv, command] of [
    [['bash', '-c', 'make test'], 'make test'],
    [['bash', '-lc', 'make test', 'name', 'argument'], 'make test'],
    [['bash', '-c', '-l', 'make test'], 'make test'],
    [['bash', '-o', 'pipefail', '-c', 'make test'], 'make test'],
    [['bash', '--rcfile', '-c', '-c', 'make test'], 'make test'],
    [['bash', '-ec', '--', 'make test'], 'make test'],
    [['bash', 'script', '-c', 'x'], 'script -c x'],
    [['bash', '--', '-c', 'x'], '-c x'],
    [['bash', '-c'], ''],
    [['bash'], ''],
    [[], ''],
  ] as const) {
    test(`${JSON.stringify(argv)} runs ${JSON.stringify(command)}`, () => {
      assert.equal(commandOf(argv), command);
    });
  }
});

/** What Claude Code 2.1.329 makes of a command. */
function claudeLine(command: string, ending = ' < /dev/null && pwd -P >| /tmp/claude-5f28-cwd'): string {
  const quoted = `'${command.replaceAll("'", `'"'"'`)}'`;
  return `source /home/u/.claude/shell-snapshots/snapshot-bash-1.sh 2>/dev/null || true && { \\builtin unalias -- 'which'; } >/dev/null 2>&1 || true && eval ${quoted}${ending}`;
}

suite('commandOf with a line of Claude Code', () => {
  const commandIn = (line: string) => commandOf(['/bin/bash', '-c', line]);

  test('finds any command', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', "'", '"', ' ', '&', '\n', '\\', ' && eval ') }),
        (command) => {
          assert.equal(commandIn(claudeLine(command)), command);
        },
      ),
    );
  });

  test('finds a command that redirects its input', () => {
    const line = claudeLine("wc <<'E'\n1\nE", ' && pwd -P >| /tmp/claude-5f28-cwd');
    assert.equal(commandIn(line), "wc <<'E'\n1\nE");
  });

  test('finds what is left of one that was cut', () => {
    const line = claudeLine("echo 'it'; make");
    assert.equal(commandIn(line.slice(0, line.indexOf('; make'))), "echo 'it'");
  });

  test('leaves any other line alone', () => {
    for (const line of ["cd x && eval 'make'", 'source env.sh && make', "source env.sh && eval $'make'"]) {
      assert.equal(commandIn(line), line);
    }
  });
});

suite('intentOf', () => {
  const said: readonly (readonly [command: string, intent: string | undefined])[] = [
    ['AGENTRM_INTENT="memory.max=2G timeout=5m" npm test', 'memory.max=2G timeout=5m'],
    ["  AGENTRM_INTENT='memory.max=2G' npm test", 'memory.max=2G'],
    ['AGENTRM_INTENT=cpu.max=150% npm test', 'cpu.max=150%'],
    ['export AGENTRM_INTENT=class=background; npm test', 'class=background'],
    ['AGENTRM_INTENT="-1g" npm test', '-1g'],
    ['npm test', undefined],
    ['echo x; AGENTRM_INTENT=memory.max=2G npm test', undefined],
    ['echo AGENTRM_INTENT=memory.max=2G', undefined],
    ['XAGENTRM_INTENT=memory.max=2G npm test', undefined],
    // Only a shell knows what these are.
    ['AGENTRM_INTENT="$X" npm test', undefined],
    ['AGENTRM_INTENT="`id`" npm test', undefined],
    ['AGENTRM_INTENT=$(id) npm test', undefined],
    ['AGENTRM_INTENT=memory.max=2G"x" npm test', undefined],
    ['AGENTRM_INTENT="memory.max=2G', undefined],
  ];
  for (const [command, intent] of said) {
    test(`${JSON.stringify(command)} asks for ${JSON.stringify(intent)}`, () => {
      assert.equal(intentOf(command), intent);
    });
  }
});
