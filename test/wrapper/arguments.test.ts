// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Peer } from './peer.ts';
import { run, type ShellOptions, scratch, unbuilt, wrapper } from './shell.ts';

const bash = 'bash';

/** What is given to the wrapper; to plain bash too, unless it has words of its own. */
const forms: { name: string; args: string[]; plain?: string[]; input?: string }[] = [
  { name: 'no argument', args: [], input: 'echo "from stdin: $0"; exit 4' },
  { name: 'one command line', args: ['echo one; exit 3'], plain: ['-c', 'echo one; exit 3'] },
  { name: 'an empty command line', args: [''], plain: ['-c', ''] },
  { name: 'a command line of blanks', args: ['  \n\t'], plain: ['-c', '  \n\t'] },
  { name: 'several lines', args: ['echo a\necho "b  c"\n'], plain: ['-c', 'echo a\necho "b  c"\n'] },
  { name: 'a command that is not there', args: ['no-such-command'], plain: ['-c', 'no-such-command'] },
  { name: 'a syntax error', args: ['echo ('], plain: ['-c', 'echo ('] },
  {
    name: 'words that a careless wrapper expands',
    args: ['echo "$0|$#|$*"; echo \\$HOME *'],
    plain: ['-c', 'echo "$0|$#|$*"; echo \\$HOME *'],
  },
  { name: '-c', args: ['-c', 'echo "$0|$#|$1|$2"', 'zero', 'one', 'two  two'] },
  { name: '-c without a command', args: ['-c'] },
  { name: '-lc', args: ['-lc', 'shopt -q login_shell && echo login'] },
  { name: '-c -l', args: ['-c', '-l', 'shopt -q login_shell && echo login'] },
  { name: '-x', args: ['-x', '-c', 'echo traced'] },
  { name: '-e', args: ['-e', '-c', 'false; echo never'] },
  { name: '-o', args: ['-o', 'pipefail', '-c', 'false | true'] },
  { name: '-s with arguments', args: ['-s', 'a', 'b c'], input: 'echo "$1|$2"' },
  { name: '-i', args: ['--norc', '-i'], input: 'echo "$PS1"; exit 5' },
  { name: '--version', args: ['--version'] },
  { name: 'an option that does not exist', args: ['--no-such-option'] },
  { name: '-- and a script', args: ['--', './script', 'a'] },
  { name: 'a script with arguments', args: ['script', 'a', 'b  c'] },
  { name: 'a script by its path', args: ['./script'] },
  { name: 'a script with blanks in its path', args: ['./with blank/script'] },
  { name: 'a script that is not there, with arguments', args: ['./absent', 'a'] },
  { name: 'an executable by its path', args: ['./executable'], plain: ['-c', './executable'] },
  { name: 'the name of a file in the directory', args: ['script'], plain: ['-c', 'script'] },
  { name: 'a directory', args: ['./with'], plain: ['-c', './with'] },
  { name: 'a path that is not there', args: ['./absent'], plain: ['-c', './absent'] },
  { name: 'exit 255', args: ['exit 255'], plain: ['-c', 'exit 255'] },
  { name: 'death by SIGTERM', args: ['kill -TERM $$'], plain: ['-c', 'kill -TERM $$'] },
  { name: 'death by SIGKILL', args: ['kill -KILL $$'], plain: ['-c', 'kill -KILL $$'] },
  { name: 'death by SIGPIPE', args: ['kill -PIPE $$'], plain: ['-c', 'kill -PIPE $$'] },
  {
    name: 'a child that dies',
    args: ['bash -c "kill -TERM \\$\\$"; echo $?'],
    plain: ['-c', 'bash -c "kill -TERM \\$\\$"; echo $?'],
  },
  { name: 'output on both', args: ['echo out; echo err >&2'], plain: ['-c', 'echo out; echo err >&2'] },
  {
    name: '100,000 bytes of command',
    args: [`: ${'x'.repeat(100_000)}; echo end`],
    plain: ['-c', `: ${'x'.repeat(100_000)}; echo end`],
  },
];

/** The ways a call can go. `line`: what the wrapper itself has to say. */
const modes: {
  name: string;
  env: (socket: string) => Record<string, string>;
  managed: boolean;
  line: string;
}[] = [
  { name: 'managed', env: (AGENTRM_SOCKET) => ({ AGENTRM_SOCKET }), managed: true, line: '' },
  {
    name: 'a Claude Code tool call',
    env: (AGENTRM_SOCKET) => ({
      AGENTRM_SOCKET,
      CLAUDECODE: '1',
      CLAUDE_CODE_CHILD_SESSION: '1',
      AI_AGENT: 'claude-code_2-1-329_agent',
    }),
    managed: true,
    line: '',
  },
  {
    name: 'a tool call of a Claude Code that names no AI_AGENT',
    env: (AGENTRM_SOCKET) => ({ AGENTRM_SOCKET, CLAUDECODE: '1', CLAUDE_CODE_CHILD_SESSION: '1' }),
    managed: true,
    line: '',
  },
  {
    name: 'a hook of Claude Code',
    env: (AGENTRM_SOCKET) => ({
      AGENTRM_SOCKET,
      CLAUDECODE: '1',
      CLAUDE_CODE_CHILD_SESSION: '1',
      AI_AGENT: 'claude-code_2-1-329_harness',
    }),
    managed: false,
    line: '',
  },
  {
    name: 'no daemon',
    env: () => ({ AGENTRM_SOCKET: '/nonexistent/agentrm.sock' }),
    managed: false,
    line: 'agentrm: no daemon at /nonexistent/agentrm.sock, running unmanaged\n',
  },
  {
    name: 'AGENTRM_DISABLE=1',
    env: (AGENTRM_SOCKET) => ({ AGENTRM_SOCKET, AGENTRM_DISABLE: '1' }),
    managed: false,
    line: '',
  },
  {
    name: 'an MCP server',
    env: (AGENTRM_SOCKET) => ({ AGENTRM_SOCKET, CLAUDECODE: '1' }),
    managed: false,
    line: '',
  },
];

describe('agentrm-bash takes the arguments of bash', { skip: unbuilt }, () => {
  const folder = scratch();
  let peer: Peer;

  before(async () => {
    mkdirSync(join(folder.path, 'with blank'));
    mkdirSync(join(folder.path, 'with'));
    for (const name of ['script', 'with blank/script', 'executable']) {
      writeFileSync(join(folder.path, name), 'echo "script $0|$#|$1|$2"; exit 6\n');
    }
    chmodSync(join(folder.path, 'executable'), 0o755);
    peer = await Peer.listen(join(folder.path, 'sock'));
  });
  after(async () => {
    await peer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  for (const mode of modes) {
    describe(mode.name, () => {
      for (const { name, args, plain, input } of forms) {
        it(name, async () => {
          const options: ShellOptions = {
            cwd: folder.path,
            env: mode.env(peer.path),
            ...(input && { input }),
          };
          const before = peer.messages.length;
          const expected = await run(bash, plain ?? args, options);
          const actual = await run(wrapper, args, options);
          assert.deepEqual(actual, { ...expected, stderr: mode.line + expected.stderr });
          const ran = peer.messages.slice(before).filter(({ op }) => op === 'run');
          assert.equal(ran.length, mode.managed ? 1 : 0);
          if (mode.managed && name !== '100,000 bytes of command') {
            assert.deepEqual(ran[0]?.argv, [bash, ...(plain ?? args)]);
          }
        });
      }
    });
  }
});
