// SPDX-License-Identifier: Apache-2.0
// What the daemon and the command line tool load, because every module stays resident as long as they run.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Parts of Node that are for the core, which talks to the model APIs; together they take 8 MB. */
const forTheCore = ['tls', 'https', 'http2', 'zlib', 'cluster', 'internal/deps/undici/undici'];

/** The parts of Node that a process has loaded after it has imported a source of daemon/. */
function loadedBy(source: string): string[] {
  const url = new URL(`../../daemon/${source}`, import.meta.url);
  const program = `await import(${JSON.stringify(url.href)}); console.log(process.moduleLoadList.join('\\n'))`;
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', program];
  const list = execFileSync(process.execPath, args, {
    cwd: fileURLToPath(new URL('.', url)),
    encoding: 'utf8',
  });
  return list.split('\n').map((line) => line.replace(/^NativeModule /, ''));
}

for (const source of ['daemon.ts', 'control/client.ts']) {
  test(`${source} loads what is for HTTP on a socket, and nothing that is for the model APIs`, () => {
    const loaded = loadedBy(source);
    assert.ok(loaded.includes('http'), 'the list is what it is taken for');
    assert.deepEqual(
      loaded.filter((name) => forTheCore.includes(name)),
      [],
    );
  });
}
