// SPDX-License-Identifier: Apache-2.0
// Claude Code with wrapper and daemon where limits are enforced. Emulated, each run of Claude Code takes half a
// minute, so few runs show much each.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import type { CallRecord } from '../../daemon/control/types.ts';
import { agentrmBash, runCommand, TestDaemon, top, until } from '../lib/daemon.ts';
import { type ClaudeRun, runClaudeCode } from './claude-code.ts';
import { managedMissing, sessionGone, take } from './managed.ts';

suite('Claude Code under the daemon', { skip: managedMissing }, () => {
  const daemon = new TestDaemon({
    config: `
rules:
  - { command: 'b"x" * (120 << 20', intent: memory.high=64M }
  - { command: 'b"x" * (500 << 20', intent: memory.high=64M memory.max=128M }
report: { slow: 1ms }
`,
  });
  const commands = [
    'echo out; echo err >&2; exit 3',
    take(20),
    take(120),
    // The output ends without a newline: what the wrapper says must not be read as part of it.
    `printf 'taking'; ${take(500)}`,
    `cat /proc/self/cgroup; '${agentrmBash}' 'cat /proc/self/cgroup'`,
  ];
  let run: ClaudeRun;
  let calls: CallRecord[];

  before(async () => {
    await daemon.start();
    const hook = { type: 'command', command: 'cat >/dev/null' };
    run = await runClaudeCode({
      rounds: [
        ...commands.map((command) => [{ command }]),
        [{ command: 'echo in the background; exit 4', run_in_background: true }],
      ],
      prefix: agentrmBash,
      env: { AGENTRM_SOCKET: daemon.socket },
      settings: { hooks: { SessionStart: [{ hooks: [hook] }] } },
      mcpServers: {
        noop: { command: process.execPath, args: [join(import.meta.dirname, 'fixtures/mcp-server.ts')] },
      },
    });
    // While the thread of the database begins anew, which takes seconds here, a list may lack some, and says so.
    await until(async () => {
      const listed = await runCommand(`${top}dist/agentrm`, ['--socket', daemon.socket, 'calls', '--json']);
      if (listed.stderr.includes('not all calls are listed')) return false;
      assert.equal(listed.code, 0, listed.stderr);
      calls = listed.stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as CallRecord);
      return calls.length > commands.length;
    }, 'all calls are listed');
  });
  after(() => daemon.close());

  test('every Bash call is listed with its session, command and exit code, and nothing else is', () => {
    assert.deepEqual(
      calls.map(({ session, agent, command, exitCode }) => ({ session, agent, command, exitCode })),
      [
        { command: 'echo', exitCode: 3 },
        { command: 'python3', exitCode: 0 },
        { command: 'python3', exitCode: 0 },
        { command: 'printf', exitCode: null },
        { command: 'cat', exitCode: 0 },
        { command: 'echo', exitCode: 4 },
      ].map((call) => ({ session: run.sessionId, agent: 'claude-code', ...call })),
    );
  });

  test('a call that needs nothing leaves no word of the wrapper in its result', () => {
    assert.equal(run.results[0]?.text, 'Exit code 3\nout\nerr');
    assert.equal(run.results[1]?.text, '20 MiB taken');
  });

  test('a call over its memory.high is frozen, lent memory and ends well; the model is told', () => {
    const [output, note, ...more] = run.results[2]?.text.split('\n') ?? [];
    assert.equal(output, '120 MiB taken');
    assert.match(note ?? '', /^agentrm: slowed for memory: .* of memory\.high 64 MiB \(.* lent\)/);
    assert.deepEqual(more, []);
    assert.equal(run.results[2]?.isError, false);
    const actions = calls[2]?.decisions.map((decision) => decision.action) ?? [];
    assert.ok(actions.indexOf('freeze') >= 0, actions.join());
    assert.ok(actions.indexOf('lend') > actions.indexOf('freeze'), actions.join());
    assert.equal(calls[2]?.outcome, 'ok');
  });

  test('a call over its memory.max is killed; the model is told why and what to do', () => {
    const [code, output, note, ...more] = run.results[3]?.text.split('\n') ?? [];
    // Claude Code calls a death by SIGKILL exit code 1, with and without the wrapper.
    assert.deepEqual([code, output, more], ['Exit code 1', 'taking', []]);
    assert.match(
      note ?? '',
      /^agentrm: killed for memory: reached its memory\.max 128 MiB .* AGENTRM_INTENT="memory\.max=\d+M"$/,
    );
    assert.equal(run.results[3]?.isError, true);
    assert.equal(calls[3]?.outcome, 'oom');
    assert.equal(calls[3]?.signal, 'SIGKILL');
    assert.ok((calls[3]?.memory.peakBytes ?? Infinity) <= 128 << 20);
  });

  test('a command through the wrapper inside a call stays in that call', () => {
    const [outer, inner, ...more] = run.results[4]?.text.split('\n') ?? [];
    assert.match(outer ?? '', new RegExp(`^0::.*/${calls[4]?.id}$`));
    assert.equal(inner, outer);
    assert.deepEqual(more, []);
  });

  test('with Claude Code its session ends, and nothing of it is left', () =>
    sessionGone(daemon, run.sessionId));
});
