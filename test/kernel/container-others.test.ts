// SPDX-License-Identifier: Apache-2.0
// The other runtime, and calls from containers that are not placed below them.
import assert from 'node:assert/strict';
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { Container } from '../lib/container.ts';
import { until, useMemory } from '../lib/daemon.ts';
import { call, limitBytes, setUp } from './container-lab.ts';
import { endTests, placeTests } from './container-tests.ts';

describe('calls below a container of runc', () => {
  const lab = setUp('containers: below\n');
  let box: Container;
  before(async () => {
    box = await lab.start('runc');
  });
  placeTests(lab, () => box);
  endTests(lab, () => box);
});

describe('calls from a container that are not placed below it', () => {
  describe('because nobody asked for it', () => {
    const { daemon, start, last } = setUp('');

    test("run below the daemon's root, within what the container has left, and end with it", async () => {
      const box = await start('crun');
      const ran = await call(box, `${useMemory(400)}; true`, {
        AGENTRM_INTENT: 'memory.high=300M memory.max=2G',
      });
      assert.match(ran.stderr, /agentrm: killed for memory/);
      assert.ok(((await last()).memory.maxBytes ?? 0) < limitBytes);
      // Nobody forks across the border of the container, but its first word is said in its place.
      const { stdout } = await call(box, 'cat /proc/self/cgroup');
      assert.match(stdout, /^0::\/\.\.\/test-[\d-]+\/s/);
      const ended = call(box, 'setsid sleep infinity & sleep infinity', { AGENTRM_SESSION: 'end' });
      const { call: id } = await daemon.event(
        (event) => event.kind === 'call-start' && event.session === 'end',
      );
      const name = readdirSync(daemon.cgroup).find((each) =>
        existsSync(join(daemon.cgroup, each, id ?? '?')),
      );
      assert.ok(name !== undefined);
      await until(
        () =>
          readFileSync(join(daemon.cgroup, name, id ?? '', 'cgroup.procs'), 'utf8').split('\n').length > 2,
        'its processes are there',
      );
      await box.stop();
      await ended;
      await until(() => !existsSync(join(daemon.cgroup, name)), 'nothing of it is left');
    });
  });

  describe('because somebody else made the place', () => {
    const { daemon, start, last } = setUp('containers: below\n');

    test('fall back to that, and the reason is told', async () => {
      const box = await start('crun');
      mkdirSync(join(box.cgroup, 'agentrm'));
      chownSync(join(box.cgroup, 'agentrm'), 1000, 1000);
      const ran = await call(box, 'cat /proc/self/cgroup; exit 6');
      assert.equal(ran.code, 6, ran.stderr);
      assert.match(ran.stdout, /^0::\/\.\.\/test-[\d-]+\/s/);
      assert.ok(((await last()).memory.maxBytes ?? 0) <= limitBytes);
      const told = await daemon.event((event) => event.kind === 'degraded' && event.error !== undefined);
      assert.match(String(told.error), /box-.*\/agentrm belongs to somebody else/);
      // As it was: it has no processes of its own anywhere else.
      assert.equal((await box.exec(['true'])).code, 0);
    });
  });
});
