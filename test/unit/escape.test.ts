// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Call } from '../../daemon/toolcall/call.ts';
import { type Escaped, EscapeWatch } from '../../daemon/toolcall/escape.ts';

const WRAPPER = 10;

/** A /proc with one call in it, and a watch over that. */
function setUp(t: TestContext) {
  const proc = mkdtempSync(join(tmpdir(), 'agentrm-proc-'));
  const inside = new Set<number>();
  const escaped: Escaped[] = [];
  const watch = new EscapeWatch((_, process) => escaped.push(process), proc);
  t.after(() => {
    watch.close();
    rmSync(proc, { recursive: true });
  });
  const call = {
    procPath: '/calls/s/c',
    wrapper: { pid: WRAPPER, startTicks: 1 },
    cgroup: { procs: () => [...inside] },
  } as unknown as Call;
  /** Puts a process there, or changes it. */
  const put = (
    pid: number,
    options: { cgroup?: string; state?: string; children?: number[]; startTicks?: number } = {},
  ) => {
    const { cgroup = '/calls/s/c', state = 'S', children = [], startTicks = pid } = options;
    mkdirSync(join(proc, `${pid}/task/${pid}`), { recursive: true });
    const fields = [state, 1, ...Array(17).fill(0), startTicks];
    writeFileSync(join(proc, `${pid}/stat`), `${pid} (p${pid}) ${fields.join(' ')}\n`);
    writeFileSync(join(proc, `${pid}/cgroup`), `0::${cgroup}\n`);
    writeFileSync(join(proc, `${pid}/task/${pid}/children`), children.map((child) => `${child} `).join(''));
    if (cgroup === call.procPath) inside.add(pid);
    else inside.delete(pid);
  };
  const end = (pid: number) => {
    rmSync(join(proc, String(pid)), { recursive: true });
    inside.delete(pid);
  };
  put(WRAPPER, { cgroup: '/agent', startTicks: 1 });
  return { watch, call, escaped, put, end };
}

const pids = (escaped: Escaped[]) => escaped.map(({ pid }) => pid);

test('a process that was inside and is elsewhere has escaped, once', (t) => {
  const { watch, call, escaped, put } = setUp(t);
  watch.add(call);
  put(20);
  watch.look(call);
  assert.deepEqual(escaped, []);
  put(20, { cgroup: '/other' });
  watch.look(call);
  watch.look(call);
  assert.deepEqual(escaped, [{ pid: 20, comm: 'p20', cgroup: '/other' }]);
  // It comes back, and leaves again.
  put(20);
  watch.look(call);
  put(20, { cgroup: '/other' });
  watch.look(call);
  assert.deepEqual(pids(escaped), [20, 20]);
});

test('one that is in a cgroup below, that has ended, or whose number is used again, has not', (t) => {
  const { watch, call, escaped, put, end } = setUp(t);
  watch.add(call);
  for (const pid of [20, 21, 22, 23]) put(pid);
  watch.look(call);
  put(20, { cgroup: '/calls/s/c/own' });
  put(21, { cgroup: '/', state: 'Z' });
  end(22);
  put(23, { cgroup: '/other', startTicks: 99 });
  watch.look(call);
  assert.deepEqual(escaped, []);
  // A name that only begins like the call's is another cgroup.
  put(20, { cgroup: '/calls/s/c2' });
  watch.look(call);
  assert.deepEqual(pids(escaped), [20]);
});

test('the command counts also if it was never seen inside, what the wrapper had before does not', (t) => {
  const { watch, call, escaped, put } = setUp(t);
  put(30, { cgroup: '/agent' });
  put(WRAPPER, { cgroup: '/agent', startTicks: 1, children: [30] });
  watch.add(call);
  put(31, { cgroup: '/other' });
  put(WRAPPER, { cgroup: '/agent', startTicks: 1, children: [30, 31] });
  watch.look(call);
  assert.deepEqual(pids(escaped), [31]);
});

test('a child that left before it was seen is found by its parent; what an escaped one forks is no news', (t) => {
  const { watch, call, escaped, put } = setUp(t);
  watch.add(call);
  put(20, { children: [21] });
  put(21, { cgroup: '/other', children: [22] });
  put(22, { cgroup: '/other' });
  watch.look(call);
  watch.look(call);
  assert.deepEqual(pids(escaped), [21]);
});

test('a call that is not watched any more is not looked at', (t) => {
  const { watch, call, escaped, put } = setUp(t);
  watch.add(call);
  put(20);
  watch.look(call);
  watch.remove(call);
  put(20, { cgroup: '/other' });
  watch.look(call);
  assert.deepEqual(escaped, []);
});
