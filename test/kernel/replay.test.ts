// SPDX-License-Identifier: Apache-2.0
// `agentrm replay`, on small traces whose survivors are known beforehand.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, afterEach, describe, type TestContext, test } from 'node:test';
import type { RunRecord } from '../../daemon/replay/experiment.ts';
import { top } from '../lib/daemon.ts';
import { native, until } from './bpf-lab.ts';

const dir = mkdtempSync(join(tmpdir(), 'replay-test-'));
const agentrm = `${top}dist/agentrm`;

/** A trace of whole seconds and MB. */
function trace(name: string, ...samples: readonly (readonly [seconds: number, megabytes: number])[]): string {
  const path = join(dir, `${name}.json`);
  writeFileSync(path, JSON.stringify(samples));
  return path;
}

/** Small but for one burst in the middle. */
const burst = trace('burst', [0, 10], [2, 60], [4, 10], [6, 10]);
/** As much memory from start to end. */
const steady = trace('steady', [0, 40], [6, 40]);

async function run(arm: string, limit: string, ...args: string[]) {
  const child = spawn(agentrm, ['replay', '--arm', arm, '--limit', limit, '--speed', '4', ...args]);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  const [code] = await once(child, 'close');
  return { code, stdout, stderr };
}

async function replay(arm: string, limit: string, ...args: string[]): Promise<RunRecord[]> {
  const { code, stdout, stderr } = await run(arm, limit, '--json', ...args);
  assert.deepEqual([code, stderr], [0, '']);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as RunRecord);
}

const survivors = (record: RunRecord | undefined) => record?.sessions.map(({ survived }) => survived);

/** What a run makes and must take away. */
function left(): string[] {
  const names = (path: string) => (existsSync(path) ? readdirSync(path) : []);
  return [...names('/sys/fs/cgroup'), ...names('/sys/fs/bpf'), ...names(tmpdir())].filter((name) =>
    name.startsWith('agentrm-replay-'),
  );
}

/** Processes of a run: sessions, wrappers, a daemon. */
function running(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && name !== String(process.pid))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim();
      } catch {
        return '';
      }
    })
    .filter((command) => /\/agentrm-replay\b|\/agentrm-run |daemon\/main\.js/.test(command));
}

describe('agentrm replay', { skip: native.isCgroup2('/sys/fs/cgroup') ? false : 'needs cgroup v2' }, () => {
  after(() => rmSync(dir, { recursive: true }));
  afterEach(() => assert.deepEqual([left(), running()], [[], []], 'nothing is left'));

  test('none: who fits survives, and takes as long as the trace', async () => {
    const [record, ...more] = await replay('none', '200M', '--trace', burst, steady, '--base-memory', '10M');
    assert.deepEqual(more, []);
    assert.ok(record);
    const { arm, limitBytes, sessions } = record;
    assert.deepEqual([arm, limitBytes], ['none', 200 * 2 ** 20]);
    assert.deepEqual(
      sessions.map((session) => [session.trace, session.class, session.survived, session.ended]),
      [
        [burst, 'interactive', true, null],
        [steady, 'background', true, null],
      ],
    );
    for (const { totalMs, aloneMs, allocP50Ms, allocP95Ms, frozenMs } of sessions) {
      assert.ok(totalMs !== null && totalMs >= 1500, `${totalMs}`);
      assert.ok(aloneMs !== null && aloneMs >= 1500, `${aloneMs}`);
      assert.ok(allocP50Ms !== null && allocP95Ms !== null && 0 < allocP50Ms && allocP50Ms <= allocP95Ms);
      assert.equal(frozenMs, 0);
    }
  });

  test('none: of two that do not fit together one survives', async () => {
    const [record] = await replay('none', '90M', '--trace', steady, burst);
    assert.equal(survivors(record)?.filter(Boolean).length, 1);
    const dead = record?.sessions.find(({ survived }) => !survived);
    assert.deepEqual([dead?.ended, dead?.totalMs, dead?.allocP95Ms], ['SIGKILL', null, null]);
  });

  test('static: who needs more than its share dies, however much is free; a table tells', async () => {
    const args = ['--runs', '2', '--trace', burst, steady];
    const { code, stdout, stderr } = await run('static', '100M', ...args);
    assert.deepEqual([code, stderr], [0, '']);
    const [head, titles, ...rows] = stdout.trim().split('\n');
    assert.equal(head, 'arm static, limit 100 MiB, speed 4, 2 runs');
    assert.match(titles ?? '', /^SESSION +CLASS +SURVIVED/);
    assert.equal(rows.length, 2);
    assert.match(rows[0] ?? '', /burst\.json +interactive +0 of 2( +-){6}$/);
    assert.match(rows[1] ?? '', /steady\.json +background +2 of 2 +\d+\.\d\d/);
  });

  test('high: the low session is throttled, the high one is not', async () => {
    const [record] = await replay('high', '300M', '--low-high', '55M', '--trace', burst, burst);
    const [high, low] = record?.sessions ?? [];
    assert.deepEqual(survivors(record), [true, true]);
    assert.ok(high && low);
    assert.ok(low.throttledMs > 100 && high.throttledMs < low.throttledMs / 2, JSON.stringify(record));
    assert.ok((low.allocP95Ms ?? 0) > (high.allocP95Ms ?? 0), JSON.stringify(record));
  });

  test('freeze: low sessions begin when the high one is done, so all survive', async () => {
    const [record] = await replay(
      'freeze',
      '90M',
      '--trace',
      steady,
      burst,
      '--class',
      'background',
      'interactive',
    );
    const [low, high] = record?.sessions ?? [];
    assert.deepEqual(survivors(record), [true, true]);
    assert.ok(low?.totalMs && high?.totalMs);
    assert.ok(low.frozenMs >= high.totalMs, JSON.stringify(record));
    assert.ok(low.totalMs >= low.frozenMs + 1500, JSON.stringify(record));
    assert.equal(high.frozenMs, 0);
  });

  test('agentrm: sessions are calls of a daemon within the limit', async () => {
    const [record] = await replay('agentrm', '200M', '--trace', burst, steady, '--stagger', '100ms');
    assert.deepEqual(survivors(record), [true, true]);
    // A slow machine may have something to say about slowness.
    for (const { said } of record?.sessions ?? []) assert.doesNotMatch(said ?? '', /unmanaged|killed/);
  });

  test('alone: a trace that this host cannot hold is not tried', async () => {
    const huge = trace('huge', [0, 1], [1, 1e6]);
    const { code, stderr } = await run('none', '100M', '--trace', huge);
    assert.equal(code, 1);
    assert.match(stderr, /^agentrm: \S+huge\.json: needs 931\.3 GiB alone, and this host has /);
  });

  for (const arm of ['freeze', 'agentrm']) {
    test(`${arm}: a signal ends it with all that it started`, async (t) => {
      const child = startLong(t, arm);
      await until(() => sessionsIn(2).length > 0);
      const said = text(child.stderr as Readable);
      child.kill('SIGINT');
      const [code] = await once(child, 'exit');
      assert.deepEqual([code, await said], [130, '']);
    });
  }

  test('agentrm: without its daemon a run fails, and leaves nothing', async (t) => {
    const child = startLong(t, 'agentrm');
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      stderr += chunk;
    });
    await until(() => sessionsIn(2).length > 0);
    for (const pid of daemons()) process.kill(pid, 'SIGKILL');
    const [code] = await once(child, 'close');
    assert.equal(code, 1);
    // Whether its connection or its process is seen to end first is a matter of luck.
    assert.match(stderr, /^agentrm: the daemon of the run(: the daemon closed| ended: SIGKILL)/);
  });
});

/** A run of two sessions; alone their trace is short, but the second begins only after a minute. */
function startLong(t: TestContext, arm: string): ChildProcess {
  const long = trace('long', [0, 5], [1, 10]);
  const args = ['replay', '--arm', arm, '--limit', '100M', '--trace', long, long, '--stagger', '60s'];
  const child = spawn(agentrm, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  t.after(() => child.kill());
  return child;
}

/** Pids of the sessions that live in the n-th run of an `agentrm replay`; before it, each trace is alone. */
function sessionsIn(number: number): string[] {
  const root = readdirSync('/sys/fs/cgroup').find((name) =>
    new RegExp(`^agentrm-replay-\\d+-${number}$`).test(name),
  );
  if (root === undefined) return [];
  try {
    const files = readdirSync(`/sys/fs/cgroup/${root}`, { recursive: true, encoding: 'utf8' });
    return files
      .filter((file) => file.endsWith('/cgroup.procs'))
      .flatMap((file) => readFileSync(`/sys/fs/cgroup/${root}/${file}`, 'latin1').split('\n'))
      .filter(Boolean);
  } catch {
    // A cgroup went while it was looked at: the next look tells.
    return [];
  }
}

function daemons(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('daemon/main.js');
      } catch {
        return false;
      }
    })
    .map(Number);
}
