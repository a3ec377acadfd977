// SPDX-License-Identifier: Apache-2.0
// Those that are not for memory; endings-memory.test.ts has the others.
import { describe } from 'node:test';
import { TestDaemon } from '../lib/daemon.ts';
import { endingTests } from './ending-tests.ts';

describe('the end of a command', () => {
  endingTests(new TestDaemon(), 'bpf', ['others']);
});
