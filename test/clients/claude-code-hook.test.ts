// SPDX-License-Identifier: Apache-2.0
// The hook in the real Claude Code, as the shipped settings have it: what the daemon has to tell of a tool call
// reaches the model, once.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { agentrmBash, top } from '../lib/daemon.ts';
import { Peer } from '../wrapper/peer.ts';
import { type ClaudeRun, claudeCodeMissing, runClaudeCode } from './claude-code.ts';

const told = (what: string) => `agentrm: slowed for memory: ${what}`;

/** The hooks of the shipped settings, with the program of this checkout. */
function shippedHooks(): object {
  const settings = readFileSync(`${top}wrapper/hooks/claude-code.settings.json`, 'utf8');
  const { hooks } = JSON.parse(settings.replaceAll('/usr/local/lib/agentrm/', top));
  return { hooks };
}

/** The history that the model was shown last. */
function lastRequest(run: ClaudeRun): string {
  const last = run.requests.findLast(({ body }) => body.includes('toolu_3_0'));
  return last?.body.toString() ?? '';
}

suite('Claude Code with the hook', { skip: claudeCodeMissing }, () => {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-hook-'));
  const asked: Record<string, unknown>[] = [];
  let run: ClaudeRun;

  before(async () => {
    // A stand-in for the daemon: what it says of a call depends on the command, as the hook sends it.
    await using peer = await Peer.listen(join(directory, 'agentrm.sock'), (message, socket) => {
      if (message.op === 'run') socket.end('go - none -\n');
      if (message.op !== 'feedback') return;
      asked.push(message);
      const command = String(message.command);
      socket.end(
        command.includes('quiet') ? 'bye\n' : `note ${told(command.includes('fail') ? 'b' : 'a')}\nbye\n`,
      );
    });
    run = await runClaudeCode({
      rounds: [
        [{ command: 'echo \'one\' "two"' }],
        [{ command: 'echo fail; exit 3' }],
        [{ command: `echo '${told('a')}' >&2; echo said` }],
        [{ command: 'echo quiet' }],
      ],
      prefix: agentrmBash,
      env: { AGENTRM_SOCKET: peer.path },
      settings: shippedHooks(),
    });
  });
  after(() => rmSync(directory, { recursive: true }));

  test('it is asked after every Bash call, for its session and its command as it was given', () => {
    assert.deepEqual(
      asked.map(({ session, command }) => ({ session, command })),
      ['echo \'one\' "two"', 'echo fail; exit 3', `echo '${told('a')}' >&2; echo said`, 'echo quiet'].map(
        (command) => ({ session: run.sessionId, command }),
      ),
      run.stderr,
    );
  });

  test('the model reads it, after a call that ended well and after one that failed', () => {
    const last = lastRequest(run);
    for (const what of ['a', 'b']) assert.ok(last.includes(told(what)), last);
    // Beside the tool's result, which is as it would be without.
    assert.equal(run.results[0]?.text, 'one two');
    assert.equal(run.results[1]?.text, 'Exit code 3\nfail');
  });

  test('but not what it has read in the output of the call', () => {
    const last = lastRequest(run);
    // The command itself, what it has said, and the hook after the first call.
    assert.equal(last.split(told('a')).length - 1, 3, last);
  });
});
