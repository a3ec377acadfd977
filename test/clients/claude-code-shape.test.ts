// SPDX-License-Identifier: Apache-2.0
// What wrapper and daemon rely on about the pinned Claude Code. A failure after an update of the pin means
// that README.md here, and what is built on it, has to be looked at again.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, suite, test } from 'node:test';
import { type ClaudeRun, claudeCodeMissing, runClaudeCode } from './claude-code.ts';

const FIXTURES = join(import.meta.dirname, 'fixtures');

interface Start {
  line: string;
  env: Record<string, string>;
  pid: number;
  parentPid: number;
  groupId: number;
  sessionId: number;
  files: string[];
}

async function readStart(directory: string, pid: string): Promise<Start> {
  const read = (name: string) => readFile(join(directory, `${pid}.${name}`), 'utf8');
  const pairs = (await read('environ'))
    .split('\0')
    .map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]);
  const argv = (await read('cmdline')).split('\0').slice(0, -1);
  // bash, the prefix itself, and the one argument
  assert.equal(argv.length, 3);
  const stat = (await read('stat'))
    .replace(/^.*\) /, '')
    .split(' ')
    .map(Number);
  const [, parentPid = NaN, groupId = NaN, sessionId = NaN] = stat;
  return {
    line: argv[2] ?? '',
    env: Object.fromEntries(pairs),
    pid: Number(pid),
    parentPid,
    groupId,
    sessionId,
    files: (await read('fds')).trim().split('\n'),
  };
}

suite('Claude Code starts through CLAUDE_CODE_SHELL_PREFIX', { skip: claudeCodeMissing }, () => {
  let run: ClaudeRun;
  let starts: Start[];

  const startOf = (part: string): Start => {
    const found = starts.find((start) => start.line.includes(part));
    assert.ok(found, `nothing started with ${part}`);
    return found;
  };

  before(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'agentrm-record-'));
    const hook = (command: string) => [{ matcher: 'Bash', hooks: [{ type: 'command', command }] }];
    run = await runClaudeCode({
      rounds: [[{ command: `echo "it's me"; cat` }], [{ command: 'wc -c <<E\n12\nE' }]],
      prefix: join(FIXTURES, 'record-prefix'),
      env: { RECORD_DIR: directory, ENABLE_TOOL_SEARCH: 'false' },
      settings: { hooks: { PreToolUse: hook('cat >/dev/null; true before') } },
      mcpServers: { noop: { command: process.execPath, args: [join(FIXTURES, 'mcp-server.ts'), 'a b'] } },
    });
    const pids = (await readdir(directory)).filter((name) => name.endsWith('.fds'));
    starts = await Promise.all(pids.map((name) => readStart(directory, name.replace('.fds', ''))));
    await rm(directory, { recursive: true });
  });

  test('a Bash call: one assembled line, marked as agent and child session', () => {
    const call = startOf('it');
    assert.match(
      call.line,
      /^source \S+ .* && eval 'echo "it'"'"'s me"; cat' < \/dev\/null && pwd -P >\| \S+$/s,
    );
    assert.match(call.env.AI_AGENT ?? '', /^claude-code_.*_agent$/);
    assert.equal(call.env.CLAUDECODE, '1');
    assert.equal(call.env.CLAUDE_CODE_CHILD_SESSION, '1');
    assert.equal(call.env.CLAUDE_CODE_SESSION_ID, run.sessionId);
  });

  test('a Bash call that redirects its input keeps it', () => {
    assert.match(startOf('wc -c').line, / && eval 'wc -c <<E\n12\nE' && pwd -P >\| \S+$/);
  });

  test('a Bash call leads a session of its own, with Claude Code as parent', () => {
    const call = startOf('it');
    assert.equal(call.groupId, call.pid);
    assert.equal(call.sessionId, call.pid);
    assert.equal(call.parentPid, Number(call.env.CLAUDE_PID));
  });

  test('stdout and stderr of a Bash call are one file, so the model reads what a wrapper says', () => {
    const [, stdout = '', stderr] = startOf('it').files;
    assert.match(stdout, /\.output$/);
    assert.equal(stderr, stdout);
  });

  test('a hook: its command as written, a child session of the harness', () => {
    const hook = startOf('before');
    assert.equal(hook.line, 'cat >/dev/null; true before');
    assert.match(hook.env.AI_AGENT ?? '', /^claude-code_.*_harness$/);
    assert.equal(hook.env.CLAUDE_CODE_CHILD_SESSION, '1');
  });

  test('an MCP server: command and quoted arguments, of the harness, no child session', () => {
    const server = startOf('mcp-server');
    assert.match(server.line, /mcp-server\.ts 'a b'$/);
    assert.match(server.env.AI_AGENT ?? '', /^claude-code_.*_harness$/);
    assert.equal(server.env.CLAUDECODE, '1');
    assert.equal(server.env.CLAUDE_CODE_CHILD_SESSION, undefined);
  });

  test('nothing else is started through it', () => {
    // Two Bash calls, the hook before each, one MCP server.
    assert.equal(starts.length, 5);
  });

  test('requests carry the session id of the calls; no other host is asked for', () => {
    for (const request of run.requests) {
      assert.equal(`${request.method} ${request.path.split('?')[0]}`, 'POST /v1/messages');
      assert.equal(request.headers['x-claude-code-session-id'], run.sessionId);
    }
  });
});
