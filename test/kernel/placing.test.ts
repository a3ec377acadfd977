// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { test } from 'node:test';
import { Cgroup } from '../../daemon/kernel/cgroup.ts';
import { files } from '../../daemon/kernel/files.ts';
import { native } from '../../daemon/kernel/native.ts';
import { cgroupPathOf } from '../../daemon/kernel/proc.ts';
import { createLogger } from '../../daemon/log.ts';
import { Bringing } from '../../daemon/toolcall/bringing.ts';
import type { Call } from '../../daemon/toolcall/call.ts';
import { removeCgroup } from '../lib/cgroups.ts';
import { cannotRecycle, processWith } from '../lib/recycled.ts';

const mount = '/sys/fs/cgroup';
const skip = existsSync(`${mount}/${files.procs}`) ? cannotRecycle : 'needs cgroup v2, and root';

test('who gets the number of a process that ends while it is moved is put back', { skip }, async (t) => {
  const procPath = `/placing-${process.pid}`;
  mkdirSync(`${mount}${procPath}`);
  t.after(() => removeCgroup(`${mount}${procPath}`));
  const sleeper = () => {
    const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
    t.after(() => child.kill('SIGKILL'));
    return child;
  };
  let meanwhile = async () => {};
  const addon = {
    ...native(),
    async writeAtAsync(dir: number, name: string, value: string) {
      await meanwhile();
      meanwhile = async () => {};
      await native().writeAtAsync(dir, name, value);
    },
  };
  const cgroup = Cgroup.open(addon, `${mount}${procPath}`);
  t.after(() => cgroup.close());
  const call = { id: 'c', procPath, cgroup, sessionCgroup: { root: { mount } } } as unknown as Call;
  const bringing = new Bringing({
    native: addon,
    cooperative: false,
    log: createLogger({ level: 'fatal', fd: 2 }),
  });
  const home = cgroupPathOf(process.pid);

  const moved = sleeper().pid ?? 0;
  await bringing.bring(moved, call, () => true);
  assert.equal(cgroupPathOf(moved), procPath);

  const child = sleeper();
  let other: ChildProcess | undefined;
  meanwhile = async () => {
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    other = await processWith(child.pid ?? 0);
    t.after(() => other?.kill('SIGKILL'));
  };
  await assert.rejects(
    bringing.bring(child.pid ?? 0, call, () => true),
    { code: 'ESRCH' },
  );
  assert.equal(other?.pid, child.pid);
  assert.equal(cgroupPathOf(other?.pid ?? 0), home);
  assert.equal(cgroupPathOf(moved), procPath);
});
