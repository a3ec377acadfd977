// SPDX-License-Identifier: Apache-2.0
// deploy/launcher, which chooses the Node that agentrmd and agentrm run with, and V8's options.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const launcher = fileURLToPath(new URL('../../deploy/launcher', import.meta.url));

/** An installation whose programs print V8's options and their arguments. @param node what stands in for Node. */
function install(t: TestContext, node = `exec '${process.execPath}' "$@"`): string {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-launcher-'));
  t.after(() => rmSync(directory, { recursive: true }));
  for (const folder of ['.tools', 'dist/daemon/cli']) mkdirSync(join(directory, folder), { recursive: true });
  writeFileSync(join(directory, '.tools/node'), `#!/bin/sh\n${node}\n`);
  chmodSync(join(directory, '.tools/node'), 0o755);
  for (const main of ['main.js', 'cli/main.js']) {
    const program = 'console.log(JSON.stringify([process.execArgv, process.argv.slice(2)]))';
    writeFileSync(join(directory, 'dist/daemon', main), program);
  }
  for (const name of ['agentrmd', 'agentrm']) copyFileSync(launcher, join(directory, 'dist', name));
  return join(directory, 'dist');
}

function run(program: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  const [options, rest] = status === 0 ? (JSON.parse(stdout) as string[][]) : [];
  return { status, options, rest, stderr };
}

const quiet = '--disable-warning=ExperimentalWarning';

test('the daemon gets the options that keep it small, and all its arguments as they are', (t) => {
  const dist = install(t);
  const { options, rest } = run(join(dist, 'agentrmd'), '--config', 'a  b*');
  assert.deepEqual(options, ['--max-semi-space-size=1', '--invocation-count-for-turbofan=30000', quiet]);
  assert.deepEqual(rest, ['--config', 'a  b*']);
});

test('the proxy alone gets its own options, and the command line tool none', (t) => {
  const dist = install(t);
  assert.deepEqual(run(join(dist, 'agentrmd'), '--proxy-only').options, ['--max-semi-space-size=4', quiet]);
  assert.deepEqual(run(join(dist, 'agentrm'), 'status').options, [quiet]);
});

test('a Node that does not know an option starts without', (t) => {
  const dist = install(t, `case "$*" in *turbofan*) exit 9 ;; esac; exec '${process.execPath}' "$@"`);
  const { status, options } = run(join(dist, 'agentrmd'));
  assert.equal(status, 0);
  assert.deepEqual(options, [quiet]);
});

test('a Node that is too old is named, with what helps', (t) => {
  const { status, stderr } = run(join(install(t, 'echo v20.20.2'), 'agentrmd'));
  assert.equal(status, 1);
  assert.match(stderr, /^agentrmd: needs Node 24 or newer, found v20\.20\.2: run make setup/);
});
