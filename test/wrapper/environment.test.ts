// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { copyFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Peer } from './peer.ts';
import { type Result, run, scratch, unbuilt, wrapper } from './shell.ts';

const bash = '/bin/bash';

/** Variables that a bash in the middle could read, act on, change or drop. */
const variables = [
  ['SHELLOPTS', 'nounset'],
  ['SHELLOPTS', 'xtrace:privileged'],
  ['BASHOPTS', 'nullglob:extglob'],
  ['BASH_FUNC_greet%%', '() {  echo "hello $1"\n}'],
  ['BASH_FUNC_broken%%', '() { ;'],
  ['BASH_FUNC_exec%%', '() {  echo hijacked\n}'],
  ['BASH_FUNC_[[%%', '() {  echo hijacked\n}'],
  ['BASH_XTRACEFD', '1'],
  ['BASH_COMPAT', '4.3'],
  ['PS1', 'prompt '],
  ['PS4', '$(echo executed)'],
  ['IFS', '/'],
  ['CDPATH', '/usr'],
  ['GLOBIGNORE', '*'],
  ['EXECIGNORE', '*'],
  ['POSIXLY_CORRECT', '1'],
  ['OPTIND', '5'],
  ['SHLVL', '7'],
  ['PWD', '/nonexistent'],
  ['OLDPWD', '/nonexistent'],
  ['TMPDIR', '/nonexistent'],
  ['LD_LIBRARY_PATH', '/nonexistent'],
  ['_', '/some/program'],
  ['not-a-name', 'kept'],
  ['run', 'kept'],
  ['dir', 'kept'],
  ['EMPTY', ''],
  ['LINES_OF_TEXT', 'a\nb\n'],
  ['LC_ALL', 'C.UTF-8'],
  ['LC_ALL', 'no_SUCH.locale'],
  ['PATH', ''],
  ['PATH', '/nonexistent'],
  ['BIG', 'x'.repeat(100_000)],
  ['AGENTRM_INTENT', 'memory.high=1G'],
] as const;

/** Prints the whole environment without the help of a variable, and what the shell made of it. */
const dump = '/usr/bin/env -0; echo; echo "$-|$BASHOPTS|$SHLVL"; set -- a/b; echo $1';

describe('agentrm-bash and the environment', { skip: unbuilt }, () => {
  const folder = scratch();
  let peer: Peer;

  before(async () => {
    peer = await Peer.listen(join(folder.path, 'sock'));
  });
  after(async () => {
    await peer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const both = async (env: Record<string, string>, args: string[]): Promise<void> => {
    const options = { cwd: folder.path, env: { AGENTRM_SOCKET: peer.path, ...env } };
    const expected = await run(bash, args, { ...options, argv0: 'bash' });
    // `_` names the program that was executed: the shell, where nothing else stood in between.
    const comparable = (result: Result) => {
      const [variables = '', ...rest] = result.stdout.split('\0\n');
      const kept = variables.split('\0').filter((pair) => !pair.startsWith('_='));
      return { ...result, stdout: [kept.sort(), ...rest] };
    };
    assert.deepEqual(comparable(await run(wrapper, args, options)), comparable(expected));
  };

  for (const [name, value] of variables) {
    it(`leaves ${JSON.stringify(`${name}=${value.slice(0, 30)}`)} to the command`, () =>
      both({ [name]: value }, ['-c', dump]));
  }

  it('leaves a thousand variables', () =>
    both(Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`V${i}`, `${i} `.repeat(i % 50)])), [
      '-c',
      dump,
    ]));

  it('keeps the prompt of an interactive shell', async () => {
    const options = { env: { AGENTRM_SOCKET: peer.path, PS1: 'my prompt> ' }, input: 'exit\n' };
    const { stderr } = await run(wrapper, ['--norc', '-i'], options);
    assert.match(stderr, /my prompt> /);
  });

  it('has `_` name the shell', async () => {
    const options = { env: { AGENTRM_SOCKET: peer.path, _: '/some/program' } };
    const { stdout } = await run(wrapper, ['-c', '/usr/bin/printenv _; echo "$BASH"'], options);
    // Called by its name, bash looks up in PATH which one it is.
    assert.equal(stdout, '/usr/bin/printenv\n/usr/bin/bash\n');
    const own = await run(wrapper, ['-c', 'echo "$_"'], options);
    assert.equal(own.stdout, '/bin/bash\n');
  });

  it('lets BASH_ENV be read once, by the command', async () => {
    const file = join(folder.path, 'bash-env');
    writeFileSync(file, 'echo read >&2; function greet { echo hello; }\n');
    const options = { env: { AGENTRM_SOCKET: peer.path, BASH_ENV: file } };
    const result = await run(wrapper, ['greet'], options);
    assert.deepEqual(result, { status: 0, signal: null, stdout: 'hello\n', stderr: 'read\n' });
  });

  it('is found through symbolic links, in any directory', async () => {
    const first = join(folder.path, 'a link');
    const second = join(folder.path, 'bash');
    symlinkSync(wrapper, first);
    symlinkSync(first, second);
    const options = { cwd: '/', env: { AGENTRM_SOCKET: peer.path, PATH: folder.path } };
    const before = peer.messages.length;
    const result = await run(second, ['echo managed'], options);
    assert.deepEqual(result, { status: 0, signal: null, stdout: 'managed\n', stderr: '' });
    assert.equal(peer.messages[before]?.op, 'run');
  });

  it('needs no file beside it', async () => {
    const copy = join(folder.path, 'copy');
    copyFileSync(wrapper, copy);
    const before = peer.messages.length;
    const result = await run(copy, ['echo managed'], { env: { AGENTRM_SOCKET: peer.path } });
    assert.deepEqual(result, { status: 0, signal: null, stdout: 'managed\n', stderr: '' });
    assert.equal(peer.messages[before]?.op, 'run');
  });

  it('is a login shell when login(1) starts it as one', async () => {
    const script = 'exec -a -bash "$0" -c "shopt login_shell"';
    const options = { env: { AGENTRM_SOCKET: peer.path } };
    const [plain, wrapped] = [
      await run(bash, ['-c', script, bash], options),
      await run(bash, ['-c', script, wrapper], options),
    ];
    assert.match(plain.stdout, /on\n$/);
    assert.deepEqual(wrapped, plain);
  });
});
