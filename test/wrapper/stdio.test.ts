// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { answering, obliging, Peer } from './peer.ts';
import { run, scratch, unbuilt, wrapper } from './shell.ts';

const bash = '/bin/bash';

/** Lists the descriptors that the command has, besides the one that lists them. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: it is the shell's
const descriptors = 'for fd in /proc/$$/fd/*; do echo "${fd##*/}"; done';

describe('agentrm-bash and the standard streams', { skip: unbuilt }, () => {
  const folder = scratch();
  let peer: Peer;
  let env: Record<string, string>;

  before(async () => {
    peer = await Peer.listen(join(folder.path, 'sock'));
    env = { AGENTRM_SOCKET: peer.path };
  });
  after(async () => {
    await peer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it('passes a megabyte through unchanged', async () => {
    const input = Array.from({ length: 20_000 }, (_, i) => `line ${i} of some text that goes through\n`).join(
      '',
    );
    const result = await run(wrapper, ['cat'], { env, input });
    assert.deepEqual(result, { status: 0, signal: null, stdout: input, stderr: '' });
  });

  it('leaves input that the command does not read to the next one', async () => {
    const input = 'first\nsecond\n';
    const result = await run(bash, ['-c', `${wrapper} 'read -r a; echo "got $a"'; cat`], { env, input });
    assert.deepEqual(result, { status: 0, signal: null, stdout: 'got first\nsecond\n', stderr: '' });
  });

  for (const closed of ['<&-', '>&-', '2>&-', '<&- >&-', '<&- >&- 2>&-']) {
    it(`leaves what the caller closed closed: ${closed}`, async () => {
      const out = join(folder.path, 'fds');
      const via = async (shell: string): Promise<[number | null, string]> => {
        const script = `${shell} -c '{ ${descriptors}; } 5>"$OUT" 1>&5 5>&-; exit 7' ${closed}`;
        const { status } = await run(bash, ['-c', script], { env: { ...env, OUT: out } });
        return [status, readFileSync(out, 'utf8')];
      };
      const before = peer.messages.length;
      assert.deepEqual(await via(wrapper), await via(bash));
      // The helper's own descriptors must not have taken their place: all of it went where it belongs.
      assert.deepEqual(
        peer.messages.slice(before).map(({ op }) => op),
        ['run', 'late', 'end'],
      );
    });
  }

  it('gives the command the descriptors of its caller and no other', async () => {
    const script = (shell: string): string => `exec 7</dev/null 9</dev/null; ${shell} -c '${descriptors}'`;
    const expected = await run(bash, ['-c', script(bash)], { env });
    assert.match(expected.stdout, /\n7\n9\n/);
    assert.deepEqual(await run(bash, ['-c', script(wrapper)], { env }), expected);
  });

  for (const [before, after] of [
    ['', ''],
    ['output', 'output\n'],
    ['output\n', 'output\n'],
  ] as const) {
    it(`begins a line with what it says in a file that holds ${JSON.stringify(before)}`, async () => {
      const out = join(folder.path, 'output');
      writeFileSync(out, before);
      const absent = { AGENTRM_SOCKET: join(folder.path, 'absent') };
      await run(bash, ['-c', `${wrapper} 'echo done' >>"$OUT" 2>&1`], { env: { ...absent, OUT: out } });
      const line = `agentrm: no daemon at ${absent.AGENTRM_SOCKET}, running unmanaged\n`;
      assert.equal(readFileSync(out, 'utf8'), `${after}${line}done\n`);
    });
  }

  it('survives a stderr that nobody reads any more', async () => {
    const script = `{ ${wrapper} 'sleep 0.1; exit 7'; echo "$?" >&3; } 2>&1 >/dev/null | true`;
    const gone = { AGENTRM_SOCKET: join(folder.path, 'absent') };
    const result = await run(bash, ['-c', `exec 3>&1; ${script}`], { env: gone });
    assert.equal(result.stdout, '7\n');
  });

  it('survives a stderr that is full', async () => {
    // The pipe holds 64 KiB, and nobody reads it.
    const script = `exec 4> >(exec sleep 5 >&- 2>&-); dd if=/dev/zero bs=65536 count=1 2>/dev/null >&4; ${wrapper} 'exit 7' 2>&4`;
    const gone = { AGENTRM_SOCKET: join(folder.path, 'absent') };
    const result = await run(bash, ['-c', script], { env: gone });
    assert.equal(result.status, 7);
  });

  it('prints what the daemon has to say on stderr only, and nothing that moves a terminal', async () => {
    await using other = await Peer.listen(join(folder.path, 'notes'), (message, socket) => {
      if (message.op === 'run') socket.write('note agentrm: first\x1b[2J\x07\n');
      obliging(message, socket);
      if (message.op === 'late') socket.write('note agentrm: while it runs\n');
      if (message.op === 'end') socket.end('note agentrm: last\nbye\n');
    });
    const result = await run(wrapper, ['sleep 0.2; echo out; echo err >&2'], {
      env: { AGENTRM_SOCKET: other.path },
    });
    assert.deepEqual(result, {
      status: 0,
      signal: null,
      stdout: 'out\n',
      stderr: 'agentrm: first?[2J?\nagentrm: while it runs\nerr\n',
    });
  });

  it('prints the report before it ends', async () => {
    await using other = await Peer.listen(join(folder.path, 'report'), (message, socket) => {
      if (message.op === 'run') answering('go c1 clone -\n')(message, socket);
      if (message.op === 'end') socket.end('note agentrm: peak 12 MiB\nnote agentrm: frozen 3 s\nbye\n');
    });
    const result = await run(wrapper, ['echo err >&2; exit 9'], { env: { AGENTRM_SOCKET: other.path } });
    assert.equal(result.status, 9);
    assert.equal(result.stderr, 'err\nagentrm: peak 12 MiB\nagentrm: frozen 3 s\n');
  });
});
