// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { addonPath, native } from './addon.ts';

/** Runs a script in a Node of its own, with the addon as `native`. */
function run(script: string, args: string[] = []) {
  const prelude = `const native = require(${JSON.stringify(addonPath)});`;
  return spawnSync(process.execPath, [...args, '-e', prelude + script], {
    encoding: 'utf8',
    timeout: 20_000,
  });
}

/** A pidfd that never becomes readable while the test runs. */
const self = 'const pidfd = native.pidfdOpen(process.pid);';

describe('watches', () => {
  it('fire on the exit of a process and can be closed twice, also from the callback', async () => {
    const child = spawn('cat');
    const pidfd = native.pidfdOpen(child.pid as number);
    let calls = 0;
    const ended = new Promise<void>((resolve) => {
      const watch = native.watch(pidfd, 'readable', () => {
        calls++;
        watch.close();
        watch.close();
        resolve();
      });
    });
    child.stdin.end();
    await ended;
    await new Promise(setImmediate);
    assert.equal(calls, 1);
    closeSync(pidfd);
  });

  it('refuse what cannot be polled or understood', () => {
    const file = openSync('/etc/passwd', 'r');
    assert.throws(() => native.watch(file, 'readable', () => {}), { code: 'EPERM', syscall: 'uv_poll_init' });
    closeSync(file);
    assert.throws(() => native.watch(file, 'readable', () => {}), { code: 'EBADF', syscall: 'uv_poll_init' });
    assert.throws(() => native.watch(0, 'never' as 'readable', () => {}), { code: 'ERR_INVALID_ARG_VALUE' });
    assert.throws(() => native.watch(0, 'readable', 1 as unknown as () => void), {
      code: 'ERR_INVALID_ARG_TYPE',
    });
  });

  it('keep the loop alive until they are closed, collected or not', () => {
    const result = run(
      `${self}
      const watch = native.watch(pidfd, 'readable', () => {});
      let turns = 0;
      const timer = setInterval(() => { gc(); if (++turns === 3) { clearInterval(timer); watch.close(); } }, 1);
      process.on('exit', () => console.log('turns', turns));`,
      ['--expose-gc'],
    );
    assert.equal(result.stdout, 'turns 3\n', result.stderr);
    assert.equal(result.status, 0);
  });

  it('still fire when nobody keeps the handle', () => {
    const result = run(
      `const child = require('node:child_process').spawn('cat');
      const pidfd = native.pidfdOpen(child.pid);
      native.watch(pidfd, 'readable', () => { console.log('fired'); process.exit(); });
      setTimeout(() => { gc(); child.stdin.end(); }, 1);`,
      ['--expose-gc'],
    );
    assert.equal(result.stdout, 'fired\n', result.stderr);
  });

  it('turn an exception into an uncaught one', () => {
    const result = run(
      `const child = require('node:child_process').spawn('true');
      process.on('uncaughtException', (error) => { console.log(error.message); process.exit(3); });
      native.watch(native.pidfdOpen(child.pid), 'readable', () => { throw new Error('from the callback'); });`,
    );
    assert.equal(result.stdout, 'from the callback\n', result.stderr);
    assert.equal(result.status, 3);
  });

  it('survive process.exit with watches and writes under way', () => {
    const result = run(
      `${self}
      for (let i = 0; i < 20; i++) {
        native.watch(native.pidfdOpen(process.pid), 'readable', () => {});
        native.writeAtAsync(native.openDir('/dev'), 'null', 'x');
      }
      native.watch(pidfd, 'readable', () => {});
      process.exit(7);`,
    );
    assert.equal(result.signal, null, result.stderr);
    assert.equal(result.status, 7);
  });

  it('work in worker threads, and end with them', async () => {
    const script = `
      const { parentPort } = require('node:worker_threads');
      const native = require(${JSON.stringify(addonPath)});
      ${self}
      native.watch(pidfd, 'readable', () => {});
      const child = require('node:child_process').spawn('true');
      native.watch(native.pidfdOpen(child.pid), 'readable', () => parentPort.postMessage('fired'));`;
    const workers = Array.from({ length: 4 }, () => new Worker(script, { eval: true }));
    for (const worker of workers) {
      const [message] = await once(worker, 'message');
      assert.equal(message, 'fired');
      assert.equal(await worker.terminate(), 1);
    }
  });
});
