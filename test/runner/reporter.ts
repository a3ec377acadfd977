// SPDX-License-Identifier: Apache-2.0

import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';
import type { TestResult } from './result.ts';

/**
 * A node:test reporter: one JSON object (TestResult) a line for each test. Only what has no tests inside counts:
 * a suite, or a test of subtests, appears only if it failed by itself.
 */
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  // Names of the tests that enclose the present event, and whether each has reported something inside.
  const path: { name: string; hasTests: boolean }[] = [];
  for await (const event of source) {
    if (event.type === 'test:start') {
      path.length = event.data.nesting;
      path.push({ name: event.data.name, hasTests: false });
    }
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;

    const { nesting, details, skip } = event.data;
    const self = path[nesting];
    const parent = path[nesting - 1];
    if (parent) parent.hasTests = true;
    const error = event.type === 'test:fail' ? event.data.details.error : undefined;
    const isGroup = details.type === 'suite' || self?.hasTests === true;
    const skipped = skip !== undefined && skip !== false;
    if (isGroup && !skipped && (error === undefined || failureType(error) === 'subtestsFailed')) continue;

    const result: TestResult = {
      name: path.slice(0, nesting + 1).map(({ name }) => name),
      state: error ? 'failed' : skipped ? 'skipped' : 'passed',
      durationMs: details.duration_ms,
      detail: error ? inspect(error.cause ?? error) : typeof skip === 'string' ? skip : '',
    };
    yield `${JSON.stringify(result)}\n`;
  }
}

function failureType(error: Error): unknown {
  return 'failureType' in error ? error.failureType : undefined;
}
