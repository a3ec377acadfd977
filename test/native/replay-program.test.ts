// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { ReplayProcess, replayProgram } from '../../daemon/replay/process.ts';
import type { Trace } from '../../daemon/replay/trace.ts';

const MB = 1e6;

/** A process that is gone after the test. */
function started(t: TestContext): ReplayProcess {
  const replaying = new ReplayProcess([replayProgram]);
  t.after(() => replaying.kill());
  return replaying;
}

const replayed = (trace: Trace, { speed = 1, baseBytes = 0, delayMs = 0 } = {}) => ({
  trace,
  speed,
  baseBytes,
  startNs: process.hrtime.bigint() + BigInt(delayMs * 1e6),
});

function memoryOf(pid: number): { nowBytes: number; peakBytes: number } {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]);
  return { nowBytes: kib('VmRSS') * 1024, peakBytes: kib('VmHWM') * 1024 };
}

/** What a process holds has no event to wait for. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `not so after 60 s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test('holds what the trace says, beside its base, and gives back the rest', async (t) => {
  const replaying = started(t);
  await replaying.ready();
  const own = memoryOf(replaying.pid).nowBytes;
  assert.ok(own < 2 * MB, `${own} bytes before anything is asked for`);
  // It stays at its last sample but one until the test has looked.
  replaying.start(
    replayed(
      [
        { atMs: 0, bytes: 30 * MB },
        { atMs: 0, bytes: 50 * MB },
        { atMs: 0, bytes: 40 * MB },
        { atMs: 0, bytes: 10 * MB },
        { atMs: 60_000, bytes: 0 },
      ],
      { baseBytes: 20 * MB },
    ),
  );
  const within = (bytes: number, wanted: number) => bytes >= wanted && bytes < wanted + 2 * MB;
  await until(() => memoryOf(replaying.pid).peakBytes >= 70 * MB);
  await until(() => within(memoryOf(replaying.pid).nowBytes, 30 * MB));
  assert.ok(within(memoryOf(replaying.pid).peakBytes, 70 * MB));
});

test('reports each growth and how long it took in all', async (t) => {
  const replaying = started(t);
  await replaying.ready();
  const trace = [
    { atMs: 0, bytes: 5 * MB },
    { atMs: 1000, bytes: 5 * MB },
    { atMs: 2000, bytes: 9 * MB },
    { atMs: 3000, bytes: 1 * MB },
    { atMs: 4000, bytes: 2 * MB },
  ];
  replaying.start(replayed(trace, { speed: 10, delayMs: 200 }));
  const { report, code } = await replaying.ended();
  assert.equal(code, 0);
  assert.ok(report);
  assert.equal(report.growthsNs.length, 3);
  for (const ns of report.growthsNs) assert.ok(ns > 0);
  // Never sooner than the trace; what it came late is counted, but for the timer's own part.
  assert.ok(report.totalNs >= 400e6, `${report.totalNs}`);
  assert.ok(report.totalNs >= 400e6 + report.lateNs, `${report.totalNs} with ${report.lateNs} late`);
});

test('does later what it was kept from doing', async (t) => {
  const replaying = started(t);
  await replaying.ready();
  process.kill(replaying.pid, 'SIGSTOP');
  const trace = [0, 100, 200, 300].map((atMs) => ({ atMs, bytes: atMs * 1000 }));
  const orders = replayed(trace);
  replaying.start(orders);
  await until(() => process.hrtime.bigint() > orders.startNs + 1_000_000_000n);
  process.kill(replaying.pid, 'SIGCONT');
  const { report } = await replaying.ended();
  assert.ok(report);
  // A second at the first sample, and the whole trace after it.
  assert.ok(report.lateNs >= 1e9, `${report.lateNs}`);
  assert.ok(report.totalNs >= 1.3e9, `${report.totalNs}`);
});

test('ends when nobody waits for it any more, also in the middle of a trace', async (t) => {
  for (const orders of ['', '0 0 2\n0 1000\n9000000000000000000 0\n']) {
    const child: ChildProcess = spawn(replayProgram, { stdio: ['pipe', 'ignore', 'pipe'] });
    t.after(() => child.kill('SIGKILL'));
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk;
    });
    child.stdin?.end(orders);
    const [code] = await once(child, 'close');
    assert.equal(code, 1);
    assert.match(said, /^agentrm-replay: stdin has ended/);
  }
});

test('refuses orders that are none', async () => {
  for (const orders of ['x', '0 0 1\n0 -x\n', '0 0 99999999999999999\n']) {
    const child: ChildProcess = spawn(replayProgram, { stdio: ['pipe', 'ignore', 'ignore'] });
    child.stdin?.on('error', () => {});
    child.stdin?.end(orders);
    const [code] = await once(child, 'close');
    assert.equal(code, 1, orders);
  }
});
