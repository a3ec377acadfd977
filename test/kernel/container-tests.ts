// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Container } from '../lib/container.ts';
import { until } from '../lib/daemon.ts';
import { recordOf } from '../lib/record-of.ts';
import { call, type Lab, sessionsIn, startWaiting } from './container-lab.ts';

/** What must hold for calls below a container, whatever runs it: place, joins by others, the end. */
export function placeTests(lab: Lab, get: () => Container): void {
  const { last } = lab;
  test('a call is forked into a cgroup below that of its container', async () => {
    const ran = await call(get(), 'cat /proc/self/cgroup; exit 4');
    assert.deepEqual([ran.code, ran.stderr], [4, '']);
    // Seen from inside, where the container's own is the top.
    assert.match(ran.stdout, /^0::\/agentrm\/s[0-9a-f]{12}\/c[0-9a-f]{12}\n$/);
    assert.equal((await last()).exitCode, 4);
    await until(() => sessionsIn(get()).length === 0, 'with the session its cgroup is gone');
  });

  test('others still join the container, before, while and after calls run', async () => {
    const waiting = await startWaiting(lab, get(), 'joins');
    for (const _ of [1, 2, 3]) {
      const joined = await get().exec(['cat', '/proc/self/cgroup']);
      assert.equal(joined.code, 0, joined.stderr);
      assert.match(joined.stdout, /^0::\/(?!agentrm\/)/);
    }
    const second = await call(get(), 'cat /proc/self/cgroup');
    assert.match(second.stdout, /^0::\/agentrm\/s/, second.stderr);
    waiting.go();
    assert.equal((await waiting.ended).code, 3);
    const joined = await get().exec(['cat', '/proc/self/cgroup']);
    assert.equal(joined.code, 0, joined.stderr);
  });
}

/** The end of the container, which is then gone. */
export function endTests(lab: Lab, get: () => Container): void {
  const { daemon, last } = lab;
  test("the container's end is that of every call, and nothing is left", async () => {
    const waiting = await startWaiting(lab, get(), 'stop', 'setsid sleep infinity & ');
    let pids: string[] = [];
    await until(() => {
      pids = readFileSync(join(waiting.directory, 'cgroup.procs'), 'utf8').trim().split('\n');
      return pids.length > 1;
    }, 'it has a background process');
    await get().stop();
    await waiting.ended;
    await daemon.event((event) => event.kind === 'session-end' && event.session === 'stop');
    await until(() => !existsSync(get().cgroup), 'its cgroup is gone');
    for (const pid of pids) assert.equal(existsSync(`/proc/${pid}`), false);
    // The end of its agent, which ends the session, may be seen before that of its wrapper.
    await recordOf(daemon, { id: waiting.id });
    assert.equal((await last()).id, waiting.id);
    await until(async () => (await daemon.liveCalls()).length === 0, 'no call is left');
    assert.equal((await daemon.status()).sessions, 0);
  });
}
