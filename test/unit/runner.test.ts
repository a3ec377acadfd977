// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { runFiles } from '../runner/files.ts';
import { count, type FileResult } from '../runner/result.ts';

describe('the test runner', () => {
  let dir: string;
  before(() => {
    dir = mkdtempSync(join(tmpdir(), 'agentrm-runner-'));
  });
  after(() => rmSync(dir, { recursive: true }));

  /** Runs one test file with this content, where `test` and `suite` are node:test's. */
  async function run(source: string, timeoutMs = 60_000): Promise<FileResult> {
    const file = join(dir, 'sample.test.mjs');
    writeFileSync(file, `import { suite, test } from 'node:test';\n${source}`);
    const results: FileResult[] = [];
    await runFiles([file], { timeoutMs, parallel: 1 }, (result) => results.push(result));
    assert.equal(results.length, 1);
    return results[0] as FileResult;
  }
  const counts = (result: FileResult) => ({
    passed: count([result], 'passed'),
    failed: count([result], 'failed'),
    skipped: count([result], 'skipped'),
  });
  const failures = (result: FileResult) => result.tests.filter(({ state }) => state === 'failed');

  test('counts what has no tests inside, once', async () => {
    const result = await run(`
      suite('outer', () => { test('a', () => {}); suite('inner', () => { test('b', () => {}); }); });
      test('parent', async (t) => { await t.test('c', () => {}); });`);
    assert.deepEqual(counts(result), { passed: 3, failed: 0, skipped: 0 });
    assert.deepEqual(
      result.tests.map(({ name }) => name.join('/')),
      ['outer/a', 'outer/inner/b', 'parent/c'],
    );
  });

  test('counts a failure once, with its message and the output of its file', async () => {
    const result = await run(`
      suite('outer', () => { test('a', () => { console.log('seen'); throw new Error('broken'); }); });`);
    assert.deepEqual(counts(result), { passed: 0, failed: 1, skipped: 0 });
    assert.match(failures(result)[0]?.detail ?? '', /broken/);
    assert.match(result.output, /seen/);
  });

  test('counts a suite whose hook fails', async () => {
    const result = await run(`
      import { before } from 'node:test';
      suite('outer', () => { before(() => { throw new Error('no ground'); }); test('a', () => {}); });`);
    assert.ok(counts(result).failed > 0);
  });

  test('keeps the reason of a skipped test', async () => {
    const result = await run(
      `test('a', { skip: 'no ground' }, () => {}); suite('s', { skip: 'none' }, () => {});`,
    );
    assert.deepEqual(counts(result), { passed: 0, failed: 0, skipped: 2 });
    assert.deepEqual(
      result.tests.map(({ detail }) => detail),
      ['no ground', 'none'],
    );
  });

  test('fails a file that dies between its tests', async () => {
    const result = await run(`test('a', () => {}); test('b', () => process.kill(process.pid, 'SIGKILL'));`);
    assert.match(failures(result)[0]?.detail ?? '', /ended with SIGKILL/);
  });

  test('runs a file once more if V8 dies before its first test, and only once', async () => {
    const died = join(dir, 'died');
    const die =
      "process.stderr.write('# Fatal error in , line 0\\n', () => process.kill(process.pid, 'SIGTRAP'));";
    const once = await run(`
      import { existsSync, writeFileSync } from 'node:fs';
      const died = existsSync(${JSON.stringify(died)});
      writeFileSync(${JSON.stringify(died)}, '');
      if (!died) ${die}
      await new Promise((resolve) => setTimeout(resolve, died ? 0 : 60_000));
      test('a', () => {});`);
    assert.deepEqual(counts(once), { passed: 1, failed: 0, skipped: 0 });
    const always = await run(`${die} await new Promise((resolve) => setTimeout(resolve, 60_000));`);
    assert.deepEqual(counts(always), { passed: 0, failed: 1, skipped: 0 });
    assert.match(failures(always)[0]?.detail ?? '', /SIGTRAP/);
    const later = await run(
      `test('a', () => {}); test('b', () => { ${die} return new Promise(() => {}); });`,
    );
    assert.ok(failures(later).length > 0);
  });

  test('fails a file that does not load', async () => {
    const result = await run('import nowhere from "./nowhere.mjs";');
    assert.match(failures(result)[0]?.detail ?? '', /exit code 1/);
    assert.match(result.output, /nowhere/);
  });

  test('kills a file that hangs', async () => {
    const result = await run('setInterval(() => {}, 1000);', 3000);
    assert.match(failures(result)[0]?.detail ?? '', /killed after 3 s/);
  });
});
