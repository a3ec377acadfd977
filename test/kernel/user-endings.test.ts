// SPDX-License-Identifier: Apache-2.0
// As endings.test.ts and endings-memory.test.ts, under a daemon of an ordinary user, without BPF and without rights.
import { after, describe } from 'node:test';
import { TestDaemon } from '../lib/daemon.ts';
import { Delegated } from '../lib/delegated.ts';
import { endingTests } from './ending-tests.ts';

describe("the end of a command under a user's own daemon", () => {
  const delegated = new Delegated();
  endingTests(new TestDaemon({ delegated }), 'user');
  after(() => delegated.close());
});
