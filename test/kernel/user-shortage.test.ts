// SPDX-License-Identifier: Apache-2.0
// The heart of shortage.test.ts under a daemon of an ordinary user; its other tests run there with root's, without BPF.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { TestDaemon } from '../lib/daemon.ts';
import { Delegated } from '../lib/delegated.ts';
import { BUDGET_MIB, LAST_RESORT, lastResort, shortageTests } from './shortage-tests.ts';

describe("calls that want more than the pool of a user's own daemon has", () => {
  const delegated = new Delegated();
  let daemon: TestDaemon;
  before(async () => {
    const config = `pool:\n  budget: ${BUDGET_MIB}M\nadmission:\n  wait: 10ms\n`;
    daemon = await new TestDaemon({ config, delegated }).start();
    assert.equal((await daemon.status()).backend.mode, 'user');
  });
  after(async () => {
    await daemon.close();
    await delegated.close();
  });

  shortageTests(() => daemon);
});

test("as a last resort the lowest is killed for the first, by a user's own daemon too", async () => {
  const delegated = new Delegated();
  try {
    await lastResort(new TestDaemon({ config: LAST_RESORT, delegated }));
  } finally {
    await delegated.close();
  }
});
