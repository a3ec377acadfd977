// SPDX-License-Identifier: Apache-2.0
// What the daemon and the command line tool load, because every module stays resident as long as they run.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Parts of Node that are for the core, which talks to the model APIs; together they take 8 MB. */
const forTheCore = ['tls', 'https', 'http2', 'zlib', 'cluster', 'internal/deps/undici/undici'];

/** The parts of Node, and the packages, that a process has loaded when it has imported these sources of daemon/. */
function loadedBy(...sources: string[]): { node: string[]; packages: string[] } {
  const urls = sources.map((source) => new URL(`../../daemon/${source}`, import.meta.url).href);
  const program = `
    import { registerHooks } from 'node:module';
    const packages = new Set();
    registerHooks({
      load(url, context, next) {
        const name = /\\/node_modules\\/((?:@[^/]+\\/)?[^/]+)\\//.exec(url)?.[1];
        if (name !== undefined) packages.add(name);
        return next(url, context);
      },
    });
    // main.ts ends the process.
    process.argv = [process.execPath, 'agentrmd', '--version'];
    process.on('exit', () => {
      console.log('\\n' + JSON.stringify({ node: process.moduleLoadList, packages: [...packages] }));
    });
    for (const url of ${JSON.stringify(urls)}) await import(url);
  `;
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', program];
  const said = execFileSync(process.execPath, args, {
    cwd: fileURLToPath(new URL('../../', import.meta.url)),
    encoding: 'utf8',
  });
  const { node, packages } = JSON.parse(said.trimEnd().split('\n').at(-1) ?? '') as Record<
    'node' | 'packages',
    string[]
  >;
  return { node: node.map((name) => name.replace(/^NativeModule /, '')), packages };
}

for (const source of ['daemon.ts', 'control/client.ts']) {
  test(`${source} loads what is for HTTP on a socket, and nothing that is for the model APIs`, () => {
    const { node } = loadedBy(source);
    assert.ok(node.includes('http'), 'the list is what it is taken for');
    assert.deepEqual(
      node.filter((name) => forTheCore.includes(name)),
      [],
    );
  });
}

// What is for the command line and the configuration is config-main.ts's, which is gone when the daemon runs; together
// that takes 14 MB.
test('agentrmd itself loads the packages for its log and its metrics, and none for its configuration', () => {
  const { packages } = loadedBy('daemon.ts', 'main.ts');
  assert.ok(
    packages.includes('pino') && packages.includes('prom-client'),
    'the list is what it is taken for',
  );
  const others = ['commander', 'yaml', 'zod', 'undici', 'eventsource-parser'];
  assert.deepEqual(
    packages.filter((name) => others.includes(name)),
    [],
  );
});
