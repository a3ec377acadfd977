// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { agentrmBash, runCommand, TestDaemon, useMemory } from '../lib/daemon.ts';
import { lastRecord } from '../lib/record-of.ts';

/** Too little for the work, so that it is stopped, frozen, lent to and thawed on the way. */
const TOO_LITTLE = 'memory.high=48M memory.max=600M';
const work = `${useMemory(120)} && echo done`;

/**
 * Programs between the wrapper and the work, each of which can see that its child was stopped. The
 * first three stop themselves then, gdb gives up its program, and a shell with job control tells. `nobody`
 * has no home, so no start-up file of a shell is in the way.
 */
const programs: Record<string, string> = {
  'a pipeline': `{ ${work}; } | cat`,
  su: `su nobody -s /bin/bash -c '${work}'`,
  runuser: `runuser -u nobody -- /bin/bash -c '${work}'`,
  nsenter: `nsenter -t 1 -m /bin/bash -c '${work}'`,
  sudo: `sudo -n -u nobody /bin/bash -c '${work}'`,
  strace: `strace -f -o /dev/null /bin/bash -c '${work}'`,
  gdb: `gdb -batch -nx -ex run --args ${useMemory(120)} 2>&1 | grep -q 'exited normally' && echo done`,
  timeout: `timeout 100 /bin/bash -c '${work}'`,
  'make -j': `printf 'all: a b\\na b:\\n\\t@${useMemory(60)}\\n' | make -s -j2 -f - && echo done`,
  'set -m': `set -m; ${work}`,
  setsid: `setsid -w /bin/bash -c '${work}'`,
};

describe('programs that see a stopped child', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await new TestDaemon().start();
  });
  after(() => daemon.close());

  for (const [name, command] of Object.entries(programs)) {
    test(`${name} is frozen, thawed and finishes as if nothing had been`, { timeout: 120_000 }, async () => {
      const ran = await daemon.run(command, { env: { AGENTRM_INTENT: TOO_LITTLE }, timeoutMs: 100_000 });
      assert.deepEqual(
        { ...ran, stderr: ran.stderr.replace(/^agentrm: .*\n/gm, '') },
        {
          code: 0,
          signal: null,
          stdout: 'done\n',
          stderr: '',
        },
      );
      const record = await lastRecord(daemon);
      const actions = record.decisions.map((decision) => decision.action);
      assert.ok(actions.includes('freeze') && actions.includes('lend'), JSON.stringify(record));
    });
  }

  test('an interactive shell on a terminal keeps its job', { timeout: 120_000 }, async () => {
    const shell = `${agentrmBash} --norc -i`;
    const ran = await runCommand('script', ['-qec', shell, '/dev/null'], {
      env: daemon.env({ AGENTRM_INTENT: TOO_LITTLE, PS1: '$ ', TERM: 'dumb' }),
      input: `${work}\nexit 5\n`,
      timeoutMs: 100_000,
    });
    assert.equal(ran.code, 5, ran.stdout);
    assert.match(ran.stdout, /^done\r$/m);
  });
});
