// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { addonPath } from './addon.ts';

/**
 * Fills memory with blocks that malloc takes from its arena, and frees every one but the last: that one is above them
 * all, so malloc gives none of them back by itself. Prints, in bytes, what was freed and what was resident before and
 * after.
 */
const program = `
const { createRequire } = require('node:module');
const { trimMemory } = createRequire('/')(${JSON.stringify(addonPath)});
const blockBytes = 60 * 1024;
const blocks = 1000;
const fill = () => Array.from({ length: blocks }, () => Buffer.alloc(blockBytes, 1)).at(-1);
const last = fill();
const freedBytes = (blocks - 1) * blockBytes;
gc();
const beforeBytes = process.memoryUsage.rss();
const trimmed = trimMemory();
const afterBytes = process.memoryUsage.rss();
console.log(JSON.stringify({ trimmed, freedBytes, beforeBytes, afterBytes, kept: last.length }));
`;

test('trimMemory gives freed memory back to the system', () => {
  // With threads of its own, V8 frees some time after gc() has returned.
  const output = execFileSync(process.execPath, ['--expose-gc', '--single-threaded-gc', '--eval', program], {
    encoding: 'utf8',
  });
  const { trimmed, freedBytes, beforeBytes, afterBytes } = JSON.parse(output);
  assert.equal(trimmed, true);
  assert.ok(beforeBytes - afterBytes > freedBytes / 2, output);
});
