// SPDX-License-Identifier: Apache-2.0
// Agents in containers of a real runtime, with the daemon outside and calls below the container's own cgroup.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { Container } from '../lib/container.ts';
import { agentrmBash, until, useMemory } from '../lib/daemon.ts';
import { recordOf } from '../lib/record-of.ts';
import { call, limitBytes, read, setUp, startWaiting } from './container-lab.ts';
import { endTests, placeTests } from './container-tests.ts';

describe('calls below a container', () => {
  const lab = setUp('containers: below\n');
  const { daemon, last } = lab;
  let box: Container;
  before(async () => {
    box = await lab.start('crun');
  });

  placeTests(lab, () => box);

  test('a call inside a call stays in it', async () => {
    const ran = await call(box, `cat /proc/self/cgroup; ${agentrmBash} -c 'cat /proc/self/cgroup'`);
    const [outer, inner] = ran.stdout.trim().split('\n');
    assert.match(outer ?? '', /^0::\/agentrm\//);
    assert.equal(inner, outer);
  });

  test("no intent lifts a call over its container's limit, and the container survives", async () => {
    const ran = await call(box, `${useMemory(400)}; true`, {
      AGENTRM_INTENT: 'memory.high=300M memory.max=2G',
    });
    assert.match(ran.stderr, /agentrm: killed for memory/);
    const record = await last();
    assert.equal(record.outcome, 'oom');
    assert.ok((record.memory.maxBytes ?? 0) <= limitBytes, JSON.stringify(record));
    assert.equal(read(box, 'memory.max'), String(limitBytes));
    assert.equal((await box.exec(['true'])).code, 0);
  });

  test('a call over its own line is frozen, lent memory, and finishes', async () => {
    const ran = await call(box, `${useMemory(60)}; exit 5`, {
      AGENTRM_INTENT: 'memory.high=16M memory.max=120M',
    });
    assert.equal(ran.code, 5, ran.stderr);
    const actions = (await last()).decisions.map(({ action }) => action);
    assert.ok(actions.includes('freeze') && actions.includes('lend'), actions.join());
  });

  test('a pause of the container holds for its calls', async () => {
    const waiting = await startWaiting(lab, box, 'pause');
    await box.do('pause');
    const frozen = () => readFileSync(join(waiting.directory, 'cgroup.events'), 'utf8').includes('frozen 1');
    await until(frozen, 'the call is frozen too');
    await box.do('resume');
    await until(() => !frozen(), 'and goes on');
    waiting.go();
    assert.equal((await waiting.ended).code, 3);
  });

  test('a daemon that dies leaves it in place, thawed, for the next', async () => {
    const waiting = await startWaiting(lab, box, 'crash');
    writeFileSync(join(waiting.directory, 'cgroup.freeze'), '1');
    await daemon.crash();
    await until(
      () => readFileSync(join(waiting.directory, 'cgroup.freeze'), 'utf8').trim() === '0',
      'the guard of the container has thawed it',
    );
    await daemon.start();
    assert.deepEqual(
      (await daemon.liveCalls()).map(({ id }) => id),
      [waiting.id],
    );
    waiting.go();
    assert.equal((await waiting.ended).code, 3);
    // The daemon that has started it is another.
    assert.equal((await recordOf(daemon, { id: waiting.id })).exitCode, 3);
  });

  endTests(lab, () => box);

  test('the next container can have the same place', async () => {
    const next = await lab.start('crun');
    const ran = await call(next, 'cat /proc/self/cgroup');
    assert.match(ran.stdout, /^0::\/agentrm\//, ran.stderr);
  });
});
