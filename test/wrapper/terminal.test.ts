// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { existsSync, readFileSync, watch } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Peer } from './peer.ts';
import { scratch, unbuilt, wrapper } from './shell.ts';
import { Terminal } from './terminal.ts';

const CTRL_C = '\x03';
const CTRL_Z = '\x1a';
const prompt = 'P> ';

/** Prints `up` without the word standing in the line that the terminal echoes. */
const up = "printf 'u%s\\n' p";

describe('agentrm-bash on a terminal', { skip: unbuilt, timeout: 120_000 }, () => {
  const folder = scratch();
  let peer: Peer;
  let env: Record<string, string>;

  before(async () => {
    peer = await Peer.listen(join(folder.path, 'sock'));
    env = { AGENTRM_SOCKET: peer.path, PS1: prompt };
  });
  after(async () => {
    await peer[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it('is an interactive shell with job control', async () => {
    using terminal = new Terminal(`${wrapper} --norc -i`, env);
    const screen = await terminal.expect(prompt);
    assert.equal(screen.includes('no job control'), false, screen);
    terminal.type('echo $((6 * 7))\n');
    await terminal.expect('\n42\r\n');
    terminal.type(`bash -c "${up}; exec sleep 100"\n`);
    await terminal.expect('\nup\r\n');
    terminal.type(CTRL_C);
    await terminal.expect(prompt);
    terminal.type('echo "status=$?"\n');
    await terminal.expect('status=130\r\n');
    terminal.type(`bash -c "${up}; exec sleep 100"\n`);
    await terminal.expect('\nup\r\n');
    terminal.type(CTRL_Z);
    await terminal.expect('Stopped');
    await terminal.expect(prompt);
    terminal.type('fg\n');
    await terminal.expect('exec sleep 100"\r\n');
    terminal.type(CTRL_C);
    await terminal.expect(prompt);
    terminal.type('exit 5\n');
    assert.equal(await terminal.end(), 5);
  });

  /** Starts a job control shell on a terminal that runs `command` through the wrapper. */
  const job = async (command: string, suffix = ''): Promise<Terminal> => {
    const terminal = new Terminal('/bin/bash --norc -i', { ...env, COMMAND: command });
    await terminal.expect(prompt);
    terminal.type(`${wrapper} "$COMMAND"${suffix}\n`);
    return terminal;
  };
  const finished = async (terminal: Terminal, status: number): Promise<void> => {
    await terminal.expect(prompt);
    terminal.type('echo "status=$?"\n');
    await terminal.expect(`status=${status}\r\n`);
    terminal.type('exit 0\n');
    assert.equal(await terminal.end(), 0);
  };

  it('is stopped by Ctrl-Z, goes on with fg, and ends by Ctrl-C, as the command does', async () => {
    using terminal = await job(`${up}; read -r line; ${up}; exec sleep 100`);
    await terminal.expect('up\r\n');
    terminal.type(CTRL_Z);
    await terminal.expect('Stopped');
    await terminal.expect(prompt);
    terminal.type('fg\n');
    await terminal.expect(wrapper);
    terminal.type('\n');
    await terminal.expect('up\r\n');
    terminal.type(CTRL_C);
    await finished(terminal, 130);
  });

  it('has the command get a Ctrl-C once', async () => {
    using terminal = await job(`trap 'echo caught' INT; ${up}; until read -r line; do :; done; exit 9`);
    await terminal.expect('up\r\n');
    terminal.type(CTRL_C);
    await terminal.expect('caught\r\n');
    terminal.type('\n');
    const rest = await terminal.expect(prompt);
    assert.equal(rest.includes('caught'), false, rest);
    terminal.type('exit $?\n');
    assert.equal(await terminal.end(), 9);
  });

  it('is not stopped by a Ctrl-Z that the command ignores', async () => {
    using terminal = await job(`trap '' TSTP; ${up}; read -r line; echo "read=$line"; exit 7`);
    await terminal.expect('up\r\n');
    terminal.type(CTRL_Z);
    terminal.type('text\n');
    await terminal.expect('read=text\r\n');
    await finished(terminal, 7);
  });

  it('is stopped when the command reads from the terminal in the background', async () => {
    using terminal = await job('read -r line; echo "read=$line"; exit 6', ' &');
    await terminal.expect(prompt);
    // The shell learns of it by SIGCHLD and says so before the next prompt.
    for (let screen = ''; !screen.includes('Stopped'); screen = await terminal.expect(prompt))
      terminal.type('\n');
    terminal.type('fg\n');
    await terminal.expect(wrapper);
    terminal.type('text\n');
    await terminal.expect('read=text\r\n');
    await finished(terminal, 6);
  });

  it('leaves the terminal as it is', async () => {
    using terminal = await job('tty; stty -a; exit 4');
    const own = await terminal.expect(prompt);
    terminal.type('bash -c "$COMMAND"\n');
    await terminal.expect('"$COMMAND"\r\n');
    const plain = await terminal.expect(prompt);
    assert.match(plain, /dev.*speed/s);
    assert.ok(own.endsWith(plain), own);
    terminal.type('exit 0\n');
    assert.equal(await terminal.end(), 0);
  });

  it('tells the command when the terminal hangs up', async () => {
    const file = join(folder.path, 'hangup');
    const command = `trap 'echo hung-up >>${file}; exit 0' HUP; ${up}; while :; do read -rt 0.05 </dev/zero; done`;
    using terminal = new Terminal(`${wrapper} "$COMMAND"`, { ...env, COMMAND: command });
    await terminal.expect('up\r\n');
    const seen = new Promise<void>((resolve) => {
      const watcher = watch(folder.path, () => {
        if (!existsSync(file) || readFileSync(file, 'utf8') === '') return;
        watcher.close();
        resolve();
      });
    });
    terminal.process.kill('SIGKILL');
    await seen;
    assert.equal(readFileSync(file, 'utf8'), 'hung-up\n');
  });
});
