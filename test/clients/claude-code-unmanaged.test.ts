// SPDX-License-Identifier: Apache-2.0
// Claude Code with the wrapper where nothing can be managed: everything runs as if AgentRM were not there.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, suite, test } from 'node:test';
import { agentrmBash, TestDaemon } from '../lib/daemon.ts';
import { type ClaudeOptions, type ClaudeRun, claudeCodeMissing, runClaudeCode } from './claude-code.ts';

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
  'echo $0 $- $#; ps -o args= -p $$ | sed s,^/bin/,, | cut -c1-9; shopt -o | grep -c on',
  'env | cut -d= -f1 | grep -v ^CLAUDE_CODE_SHELL_PREFIX | sort | md5sum',
  'seq 1 200000 | md5sum',
  '(sleep 1; echo late) & echo early',
];

const NO_OUTPUT = '(Bash completed with no output)';
const MCP_SERVER = join(import.meta.dirname, 'fixtures/mcp-server.ts');
const OPTIONS: ClaudeOptions = {
  rounds: COMMANDS.map((command) => [{ command }]),
  // Tools of MCP servers are offered at once, not searched for.
  env: { ENABLE_TOOL_SEARCH: 'false', AGENTRM_SOCKET: '/nowhere/agentrm.sock' },
  settings: {
    hooks: { SessionStart: [{ hooks: [{ type: 'command', command: 'echo "a hook said this"' }] }] },
  },
  mcpServers: { noop: { command: process.execPath, args: [MCP_SERVER] } },
};

/** What the model was told, without what the wrapper says on a line of its own. */
function told(run: ClaudeRun, note?: RegExp): object[] {
  return run.results.map(({ text, isError }) => {
    // The client calls its shell /bin/bash, the wrapper calls it bash: it complains by that name, and has it in `$0`.
    const named = text.replaceAll('/bin/bash', 'bash');
    const rest = note === undefined ? named : named.replace(note, '').trimEnd();
    return { text: rest === '' ? NO_OUTPUT : rest, isError };
  });
}

function ending({ code, signal, stdout, stderr }: ClaudeRun): object {
  return { code, signal, stdout, stderr };
}

suite('the wrapper where no call can be managed', { skip: claudeCodeMissing }, () => {
  let plain: ClaudeRun;

  before(async () => {
    plain = await runClaudeCode(OPTIONS);
    assert.deepEqual(ending(plain), { code: 0, signal: null, stdout: 'done\n', stderr: '' });
    assert.equal(plain.results.length, COMMANDS.length);
  });

  test('without a daemon: the model is told the same, and that the call runs unmanaged', async () => {
    const run = await runClaudeCode({ ...OPTIONS, prefix: agentrmBash });
    const note = /^agentrm: no daemon at \/nowhere\/agentrm\.sock, running unmanaged\n?/m;
    assert.deepEqual(told(run, note), told(plain));
    for (const { text } of run.results) assert.equal(text.split(note).length, 2, text);
    assert.deepEqual(ending(run), ending(plain));
    // An MCP server works, and what a hook says has no word of the wrapper with it.
    assert.match(run.requests.at(-1)?.body.toString() ?? '', /"name":"mcp__noop__noop"/);
    const first = run.requests[0]?.body.toString() ?? '';
    assert.match(first, /a hook said this/);
    assert.doesNotMatch(first, /agentrm:/);
  });

  test('with a daemon that has no cgroups: the model is told the same', async (t) => {
    const daemon = new TestDaemon({ cgroup: '/nowhere' });
    t.after(() => daemon.close());
    await daemon.start();
    const run = await runClaudeCode({
      ...OPTIONS,
      prefix: agentrmBash,
      env: { ...OPTIONS.env, AGENTRM_SOCKET: daemon.socket },
    });
    assert.deepEqual(told(run), told(plain));
    assert.deepEqual(ending(run), ending(plain));
    assert.deepEqual(await daemon.calls(), []);
  });
});
