// SPDX-License-Identifier: Apache-2.0
// Claude Code with the wrapper and no daemon: everything runs as if neither were there.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, suite, test } from 'node:test';
import type { ToolResult } from './bash-script.ts';
import {
  type ClaudeOptions,
  type ClaudeRun,
  claudeCodeMissing,
  runClaudeCode,
  WRAPPER,
} from './claude-code.ts';

const COMMANDS = [
  'echo out; echo err >&2; exit 3',
  'true',
  'printf "no newline"',
  'cat; echo "stdin was empty"',
  'wc -c <<E\n12\nE',
  `echo 'it'"'"'s' "\\$HOME" \\\\ 'ä€'`,
  'mkdir below && cd below',
  'basename "$PWD"',
  'kill -KILL $$',
  'kill -TERM $$',
  'exit 125',
  'no-such-command-at-all',
  'echo {',
  'if then',
  'echo $0 $- $#; ps -o args= -p $$ | cut -c1-9; shopt -o | grep -c on',
  'env | cut -d= -f1 | grep -v ^CLAUDE_CODE_SHELL_PREFIX | sort | md5sum',
  'seq 1 200000 | md5sum',
  '(sleep 1; echo late) & echo early',
];

const MCP_SERVER = join(import.meta.dirname, 'fixtures/mcp-server.ts');
const NO_OUTPUT = '(Bash completed with no output)';
// What the wrapper says; it must have a line of its own.
const NOTE = /^agentrm: no daemon at \/nowhere\/agentrm\.sock, running unmanaged\n?/m;

function withoutNote(result: ToolResult | undefined): {
  text: string | undefined;
  isError: boolean | undefined;
} {
  const rest = result?.text.replace(NOTE, '').trimEnd();
  return { text: rest === '' ? NO_OUTPUT : rest, isError: result?.isError };
}

suite('without a daemon', { skip: claudeCodeMissing }, () => {
  let plain: ClaudeRun;
  let wrapped: ClaudeRun;

  before(async () => {
    const hook = { type: 'command', command: 'echo "a hook said this"' };
    const options: ClaudeOptions = {
      rounds: COMMANDS.map((command) => [{ command }]),
      // Tools of MCP servers are offered at once, not searched for.
      env: { ENABLE_TOOL_SEARCH: 'false', AGENTRM_SOCKET: '/nowhere/agentrm.sock' },
      settings: { hooks: { SessionStart: [{ hooks: [hook] }] } },
      mcpServers: { noop: { command: process.execPath, args: [MCP_SERVER] } },
    };
    plain = await runClaudeCode(options);
    wrapped = await runClaudeCode({ ...options, prefix: WRAPPER });
  });

  for (const [place, command] of COMMANDS.entries()) {
    test(`the model is told the same about: ${command}`, () => {
      assert.notEqual(plain.results[place], undefined);
      assert.deepEqual(withoutNote(wrapped.results[place]), withoutNote(plain.results[place]));
    });
  }

  test('each result says once that the call ran unmanaged', () => {
    for (const { text } of wrapped.results) assert.equal(text.split(NOTE).length, 2, text);
  });

  test('an MCP server is started and offers its tool', () => {
    assert.match(wrapped.requests.at(-1)?.body.toString() ?? '', /"name":"mcp__noop__noop"/);
  });

  test('the model hears what a hook said and not a word of the wrapper with it', () => {
    const first = wrapped.requests[0]?.body.toString() ?? '';
    assert.match(first, /a hook said this/);
    assert.doesNotMatch(first, /agentrm:/);
  });
});
