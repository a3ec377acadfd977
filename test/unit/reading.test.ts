// SPDX-License-Identifier: Apache-2.0
// What agentrmd learns of its command line and its configuration from the process that reads them.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../../daemon/config/load.ts';
import { readConfig } from '../../daemon/config/reading.ts';
import { version } from '../../daemon/version.ts';

function file(t: TestContext, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-reading-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'agentrmd.yaml');
  writeFileSync(path, text);
  return path;
}

test('the configuration is what it would be if it were read here, also where it is no JSON', async (t) => {
  const limits = 'defaults: memory.high=1G memory.max=max\n';
  // More than a pipe holds at once.
  const rules = Array.from(
    { length: 2_000 },
    (_, n) => `  - { command: c${n}, intent: memory.high=${n + 1}M }\n`,
  );
  const path = file(t, `${limits}rules:\n${rules.join('')}`);
  const read = await readConfig([
    '--config',
    path,
    '--socket',
    '/a',
    '--cgroup',
    '/b',
    '--log-level',
    'warn',
  ]);
  const loaded = loadConfig({ file: path, flags: { socket: '/a', cgroup: '/b', logLevel: 'warn' } });
  assert.ok(loaded.ok);
  assert.equal(loaded.config.defaults.memoryMaxBytes, Number.POSITIVE_INFINITY);
  assert.deepEqual(read, {
    ok: true,
    config: loaded.config,
    proxyOnly: false,
    untilStdinEnds: false,
    version: version(),
  });
});

test('every problem is a line', async (t) => {
  const path = file(t, 'log:\n  lvl: info\nnonsense: 1\n');
  assert.deepEqual(await readConfig(['--proxy-only', '--config', path]), {
    ok: false,
    problems: [`${path}:2:3: log.lvl: unknown key`, `${path}:3:1: nonsense: unknown key`],
  });
});

test('a socket on the command line is meant from where the daemon is started', async (t) => {
  const config = file(t, '');
  for (const [given, meant] of [
    ['run/x.sock', resolve('run/x.sock')],
    ['/a', '/a'],
    ['auto', null],
  ] as const) {
    const read = await readConfig(['--config', config, '--socket', given]);
    assert.ok('ok' in read && read.ok);
    assert.equal(read.config.socket, meant);
  }
});
