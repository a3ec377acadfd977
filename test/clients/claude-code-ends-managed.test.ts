// SPDX-License-Identifier: Apache-2.0
// What remains of a call when Claude Code itself puts an end to it, or comes to an end.
import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { agentrmBash, TestDaemon } from '../lib/daemon.ts';
import { recordOf } from '../lib/record-of.ts';
import { type ClaudeRun, runClaudeCode } from './claude-code.ts';
import { managedMissing, sessionGone, take } from './managed.ts';

suite('Claude Code ends a call of the daemon', { skip: managedMissing }, () => {
  // No memory to lend, so that the first call stays frozen longer than Claude Code waits for it.
  const daemon = new TestDaemon({
    config: `
pool: { budget: 64M, keepAvailable: 100G }
ceiling: memory.max=1G
defaults: memory.high=64M
enforcement: { freezeDeadline: 5m }
`,
  });
  let run: ClaudeRun;

  before(async () => {
    await daemon.start();
    run = await runClaudeCode({
      rounds: [
        [{ command: take(120), timeout: 15_000 }],
        [{ command: 'setsid tail -f /dev/null & kill -KILL "$CLAUDE_PID"' }],
      ],
      prefix: agentrmBash,
      env: { AGENTRM_SOCKET: daemon.socket, CLAUDE_CODE_DISABLE_BACKGROUND_TASKS: '1' },
    });
  });
  after(() => daemon.close());

  test('its time limit ends even a frozen call', async () => {
    const { call: id } = await daemon.event((event) => event.kind === 'freeze');
    // A list that the database does not answer for in time begins with a later one.
    const call = await recordOf(daemon, { id: String(id) });
    assert.match(run.results[0]?.text ?? '', /Command timed out after 15s/);
    const actions = call.decisions.map((decision) => decision.action);
    assert.ok(actions.includes('freeze'), actions.join());
    assert.ok(!actions.includes('lend'), actions.join());
    // It kills command and wrapper one after the other, so the wrapper may or may not report the end.
    assert.equal(call.exitCode, null);
  });

  test('when it is killed, its session and what its calls left running end with it', async () => {
    assert.equal(run.signal, 'SIGKILL');
    await sessionGone(daemon, run.sessionId);
    assert.deepEqual(await daemon.liveCalls(), []);
  });
});
