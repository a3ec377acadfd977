// SPDX-License-Identifier: Apache-2.0
// On all kernels: who is killed, and what tells of it, is the kernel's doing.
import { describe } from 'node:test';
import { TestDaemon } from '../lib/daemon.ts';
import { endingTests } from './ending-tests.ts';

describe('the end of a command, for memory', () => {
  endingTests(new TestDaemon(), 'bpf', ['memory']);
});
