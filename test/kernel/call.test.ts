// SPDX-License-Identifier: Apache-2.0
import { after, before, describe } from 'node:test';
import { TestDaemon } from '../lib/daemon.ts';
import { callTests } from './call-tests.ts';

describe('a tool call in its own cgroup', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await new TestDaemon().start();
  });
  after(() => daemon.close());

  callTests(() => daemon, { mode: 'bpf', root: /\/test-[\d-]+/ });
});
