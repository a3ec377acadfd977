// SPDX-License-Identifier: Apache-2.0
// The hook that tells an agent what there is to tell of a tool call, against a stand-in for the daemon.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { Peer, type Reply } from './peer.ts';
import { type Result, run, scratch } from './shell.ts';

const hook = new URL('../../dist/agentrm-hook', import.meta.url).pathname;
const LINE =
  'agentrm: killed for memory: reached its memory.max 128 MiB (peak 128 MiB); ask for more with AGENTRM_INTENT="memory.max=256M"';
const silent: Result = { status: 0, signal: null, stdout: '', stderr: '' };

const telling: Reply = (message, socket) => {
  if (message.op === 'feedback') socket.end(`note ${LINE}\nbye\n`);
};

/** As Claude Code writes it: the parts that are looked at among many that are not. */
function input(changes: object = {}) {
  return {
    session_id: 'session-a',
    transcript_path: '/home/a/.claude/x.jsonl',
    cwd: '/home/a',
    permission_mode: 'default',
    hook_event_name: 'PostToolUse',
    tool_name: 'Bash',
    tool_input: { command: 'npm test', description: 'Runs "the" tests', timeout: 1000 },
    tool_response: {
      stdout: 'out',
      stderr: '',
      interrupted: false,
      command: 'no',
      list: [{ command: 'no' }, 'x'],
    },
    tool_use_id: 'toolu_1',
    ...changes,
  };
}

describe('agentrm-hook', { skip: existsSync(hook) ? false : 'dist/agentrm-hook is not built' }, () => {
  const files = scratch();
  after(() => files[Symbol.dispose]());
  let path = '';
  let count = 0;
  beforeEach(() => {
    count += 1;
    path = `${files.path}/hook-${count}.sock`;
  });
  const told = (text: string, env: Record<string, string> = { AGENTRM_SOCKET: path }) =>
    run(hook, ['post-tool-use'], { input: text, env });

  for (const event of ['PostToolUse', 'PostToolUseFailure']) {
    it(`tells after ${event}, asking for this command of this session`, async () => {
      await using peer = await Peer.listen(path, telling);
      const ran = await told(JSON.stringify(input({ hook_event_name: event })));
      assert.deepEqual({ ...ran, stdout: '' }, silent);
      assert.deepEqual(JSON.parse(ran.stdout), {
        hookSpecificOutput: { hookEventName: event, additionalContext: LINE },
      });
      assert.deepEqual(await peer.message('feedback'), {
        op: 'feedback',
        v: 1,
        session: 'session-a',
        command: 'npm test',
      });
    });
  }

  it('says nothing if there is nothing to tell', async () => {
    await using _ = await Peer.listen(path, (_message, socket) => void socket.end('bye\n'));
    assert.deepEqual(await told(JSON.stringify(input())), silent);
  });

  it('says nothing that the output of the tool has already', async () => {
    await using _ = await Peer.listen(path, telling);
    const stderr = `warning: x\n${LINE}\n`;
    assert.deepEqual(await told(JSON.stringify(input({ tool_response: { stderr } }))), silent);
    assert.deepEqual(await told(JSON.stringify(input({ error: `Exit code 1\n${stderr}` }))), silent);
  });

  it('says nothing without a daemon, with one that hangs, or with one that talks nonsense', async () => {
    assert.deepEqual(await told(JSON.stringify(input())), silent);
    {
      await using _ = await Peer.listen(path, () => {});
      assert.deepEqual(await told(JSON.stringify(input())), silent);
    }
    await using _ = await Peer.listen(
      path,
      (_message, socket) => void socket.end(`note ${'x'.repeat(9000)}\n`),
    );
    assert.deepEqual(await told(JSON.stringify(input())), silent);
  });

  it('asks nothing about other tools, or of what is no input of a hook', async () => {
    await using peer = await Peer.listen(path, telling);
    for (const text of [
      '',
      '{',
      '[]',
      '"session_id"',
      JSON.stringify(input({ tool_input: { file_path: '/x' } })),
      JSON.stringify(input({ tool_input: [{ command: 'npm test' }] })),
      JSON.stringify(input({ session_id: undefined })),
      JSON.stringify(input()).slice(0, 100),
    ]) {
      assert.deepEqual(await told(text), silent, text);
    }
    assert.deepEqual(peer.messages, []);
  });

  it('passes any command on as it is, up to what the daemon compares', async () => {
    await using peer = await Peer.listen(path, telling);
    const long = fc
      .tuple(fc.constantFrom('\u0001', '"', '\\', 'x', 'é', '\u{1f600}'), fc.integer({ min: 0, max: 9000 }))
      .map(([unit, times]) => unit.repeat(times));
    const command = fc.oneof(fc.string({ unit: 'binary' }), long);
    await fc.assert(
      fc.asyncProperty(command, fc.boolean(), async (text, pretty) => {
        peer.messages.length = 0;
        const given = input({ tool_input: { description: '"command":', command: text } });
        const ran = await told(JSON.stringify(given, null, pretty ? 2 : 0));
        assert.equal(JSON.parse(ran.stdout).hookSpecificOutput.additionalContext, LINE);
        const sent = String((await peer.message('feedback')).command);
        assert.ok(sent === text || (sent.length >= 4096 && text.startsWith(sent.slice(0, -1))));
      }),
      { numRuns: 40 },
    );
  });

  it('takes input of any length', async () => {
    await using _ = await Peer.listen(path, telling);
    const ran = await told(JSON.stringify(input({ tool_response: { stdout: 'x'.repeat(3 << 20) } })));
    assert.equal(JSON.parse(ran.stdout).hookSpecificOutput.additionalContext, LINE);
  });
});
