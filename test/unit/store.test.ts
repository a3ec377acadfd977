// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { CallRecord } from '../../daemon/control/types.ts';
import { createLogger, flushLog } from '../../daemon/log.ts';
import type { CommandRun, LearnedFilter } from '../../daemon/store/database.ts';
import { migrations } from '../../daemon/store/migrations.ts';
import { type Query, Store } from '../../daemon/store/store.ts';
import { StoreThread } from '../../daemon/store/thread.ts';
import { callRecord } from '../lib/records.ts';

function setUp(
  t: TestContext,
  options: { keepCalls?: number; keepShapes?: number; keepRuns?: number; path?: string; journal?: true } = {},
) {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-store-'));
  const fd = openSync(join(directory, 'log'), 'a');
  const log = createLogger({ level: 'info', fd });
  const path = options.path ?? join(directory, 'state', 'calls.db');
  const journal = join(directory, 'journal');
  const stores: Store[] = [];
  const { journal: _, ...rest } = options;
  t.after(async () => {
    await Promise.all(stores.map((store) => store.close()));
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  return {
    directory,
    path,
    journal,
    open: () => {
      const store = new Store({ ...rest, ...(options.journal && { journal }), path, log });
      stores.push(store);
      return store;
    },
    /** The messages logged so far, when there are as many as are expected. */
    messages: async (expected: number): Promise<string[]> => {
      for (;;) {
        flushLog(log);
        const lines = readFileSync(join(directory, 'log'), 'utf8').split('\n').slice(0, -1);
        if (lines.length >= expected) return lines.map((line) => JSON.parse(line).msg);
        // What is being written just now cannot be flushed.
        await new Promise(setImmediate);
      }
    },
  };
}

async function find(store: Store, query: Partial<Query> = {}): Promise<CallRecord[]> {
  const found: CallRecord[] = [];
  for await (const line of store.lines({ limit: 100_000, ...query })) found.push(JSON.parse(line));
  return found;
}

async function ids(store: Store, query: Partial<Query> = {}): Promise<string[]> {
  return (await find(store, query)).map(({ id }) => id);
}

/** Waits until the store has written all that it holds: it looks each time that it has answered. */
async function settled(store: Store): Promise<void> {
  while (store.counters().pending > 0) await find(store, { limit: 1 });
}

function records(count: number, from = 0): CallRecord[] {
  return Array.from({ length: count }, (_, index) => callRecord(from + index));
}

test('what was added is found at once, whole, and by the next daemon too', async (t) => {
  const { open, path } = setUp(t);
  const store = open();
  const record = callRecord(1, {
    command: 'a\u0000b "quoted" \u{1f600} \ud800',
    exitCode: null,
    signal: 'SIGKILL',
    outcome: 'killed',
    decisions: [{ atMs: 12, action: 'freeze', reason: 'over the freeze line', usageBytes: 5 }],
  });
  store.add(record);
  assert.deepEqual(await find(store), [record]);
  await store.close();
  assert.deepEqual(await find(open()), [record]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('the newest come, oldest first, over many pages and by session and user', async (t) => {
  const { open } = setUp(t);
  const store = open();
  const all = records(900).map((record, index) => ({
    ...record,
    session: `session-${index % 3}`,
    uid: 1000 + (index % 2),
  }));
  for (const record of all) store.add(record);
  const idsOf = (some: CallRecord[]) => some.map(({ id }) => id);
  assert.deepEqual(await ids(store), idsOf(all));
  assert.deepEqual(await ids(store, { limit: 600 }), idsOf(all.slice(-600)));
  assert.deepEqual(
    await ids(store, { limit: 290, session: 'session-1' }),
    idsOf(all.filter(({ session }) => session === 'session-1').slice(-290)),
  );
  assert.deepEqual(await ids(store, { uid: 1001 }), idsOf(all.filter(({ uid }) => uid === 1001)));
  assert.deepEqual(await ids(store, { uid: 1001, session: "x' OR 1=1 --" }), []);
  assert.deepEqual(await ids(store, { limit: 0 }), []);
});

test('only the newest keepCalls stay', async (t) => {
  const { open, path } = setUp(t, { keepCalls: 50 });
  const store = open();
  for (const record of records(700)) store.add(record);
  assert.deepEqual(
    await ids(store),
    records(50, 650).map(({ id }) => id),
  );
  await store.close();
  const file = new DatabaseSync(path);
  assert.deepEqual({ ...file.prepare('SELECT count(*) AS rows FROM calls').get() }, { rows: 50 });
  file.close();
});

test('a record is cut to its bounds', async (t) => {
  const { open } = setUp(t);
  const store = open();
  const decisions = Array.from({ length: 500 }, (_, atMs) => ({
    atMs,
    action: 'thaw' as const,
    reason: 'room',
  }));
  store.add(callRecord(1, { command: 'x'.repeat(1024 * 1024), decisions }));
  const [found] = await find(store);
  assert.equal(found?.command, `${'x'.repeat(1024)}…`);
  assert.deepEqual(
    found?.decisions.map(({ atMs }) => atMs),
    Array.from({ length: 32 }, (_, index) => 468 + index),
  );
});

test('a record that is no JSON is counted, and harms no other', async (t) => {
  const { open } = setUp(t);
  const store = open();
  store.add(callRecord(1, { durationMs: 1n as unknown as number }));
  store.add(callRecord(2));
  assert.deepEqual(await ids(store), [callRecord(2).id]);
  assert.deepEqual(store.counters(), { written: 1, dropped: 1, errors: 0, pending: 0, unjournaled: 0 });
});

test('a file that cannot be opened: records stay in memory, bounded, and are told of once', async (t) => {
  const { open, path, messages } = setUp(t);
  mkdirSync(path, { recursive: true });
  const store = open();
  for (const record of records(3000)) store.add(record);
  const newest = records(2048, 952).map(({ id }) => id);
  assert.deepEqual(await ids(store), newest);
  assert.deepEqual(await ids(store, { limit: 5 }), newest.slice(-5));
  const { errors, ...counters } = store.counters();
  assert.deepEqual(counters, { written: 0, dropped: 952, pending: 2048, unjournaled: 0 });
  assert.ok(errors >= 2);
  assert.deepEqual(await messages(1), ['finished calls are kept in memory']);
  rmSync(path, { recursive: true });
  await settled(store);
  assert.deepEqual(await ids(store), newest);
  assert.deepEqual(await messages(2), [
    'finished calls are kept in memory',
    'finished calls are stored again',
  ]);
  await store.close();
  assert.deepEqual(await ids(open()), newest);
});

test('a file that another process has locked: answers, and writes when it is free', async (t) => {
  const { open, path } = setUp(t);
  const store = open();
  store.add(callRecord(1));
  await settled(store);
  const other = new DatabaseSync(path);
  other.exec('BEGIN IMMEDIATE');
  store.add(callRecord(2));
  assert.deepEqual(await ids(store), [callRecord(1).id, callRecord(2).id]);
  assert.equal(store.counters().pending, 1);
  other.exec('COMMIT');
  other.close();
  await settled(store);
  assert.deepEqual(await ids(store), [callRecord(1).id, callRecord(2).id]);
  assert.equal(store.counters().written, 2);
});

test('a list without what only the file has says so', async (t) => {
  const { open, directory } = setUp(t);
  const inTheWay = join(directory, 'state');
  writeFileSync(inTheWay, '');
  const store = open();
  store.add(callRecord(1));
  const list = async () => {
    const reasons: string[] = [];
    const listed: string[] = [];
    for await (const line of store.lines({ limit: 10 }, (reason) => reasons.push(reason)))
      listed.push(JSON.parse(line).id);
    return { listed, reasons: reasons.length };
  };
  assert.deepEqual(await list(), { listed: [callRecord(1).id], reasons: 1 });
  rmSync(inTheWay);
  await settled(store);
  assert.deepEqual(await list(), { listed: [callRecord(1).id], reasons: 0 });
});

test('a file that is no database is moved aside, and a new one begun', async (t) => {
  const { open, path, messages, directory } = setUp(t);
  mkdirSync(join(directory, 'state'));
  writeFileSync(path, 'not a database, '.repeat(1000));
  const store = open();
  store.add(callRecord(1));
  await settled(store);
  assert.deepEqual(await ids(store), [callRecord(1).id]);
  assert.match(readFileSync(`${path}.corrupt`, 'utf8'), /^not a database/);
  assert.deepEqual(await messages(1), ['database moved aside']);
});

test('a file with damaged pages is moved aside at the next start', async (t) => {
  const { open, path, messages } = setUp(t);
  const first = open();
  for (const record of records(500)) first.add(record);
  await first.close();
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.alloc(8192, 0xa5), 0, 8192, 8192);
  closeSync(fd);
  const second = open();
  second.add(callRecord(1000));
  await settled(second);
  assert.deepEqual(await ids(second), [callRecord(1000).id]);
  assert.ok(existsSync(`${path}.corrupt`));
  assert.deepEqual(await messages(1), ['database moved aside']);
});

test('a file that is damaged while it is open does not stop the store', async (t) => {
  const { open, path } = setUp(t);
  const store = open();
  for (const record of records(500)) store.add(record);
  await settled(store);
  truncateSync(path, 4096);
  truncateSync(`${path}-wal`, 0);
  for (const record of records(500, 500)) store.add(record);
  await settled(store);
  assert.deepEqual(
    (await ids(store)).slice(-500),
    records(500, 500).map(({ id }) => id),
  );
});

test('a file of a newer version is kept aside', async (t) => {
  const { open, path } = setUp(t);
  const first = open();
  first.add(callRecord(1));
  await first.close();
  const newer = new DatabaseSync(path);
  newer.exec('PRAGMA user_version = 99');
  newer.close();
  const second = open();
  second.add(callRecord(2));
  assert.deepEqual(await ids(second), [callRecord(2).id]);
  const aside = new DatabaseSync(`${path}.newer`);
  assert.deepEqual({ ...aside.prepare('SELECT id FROM calls').get() }, { id: callRecord(1).id });
  aside.close();
});

test('a disk that hangs holds nobody up', async (t) => {
  const { open, path, directory } = setUp(t);
  mkdirSync(join(directory, 'state'));
  // Opening a pipe that nobody reads waits for ever, as a disk may.
  execFileSync('mkfifo', [path]);
  const store = open();
  for (const record of records(300)) store.add(record);
  try {
    assert.deepEqual(
      await ids(store),
      records(300).map(({ id }) => id),
    );
    await store.close();
    assert.equal(store.counters().pending, 300);
  } finally {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
  }
});

test('a thread that dies fails what waits, and the next request has a new one', async () => {
  const start = (code: string) => {
    const file = new URL(`data:text/javascript,${code}`);
    const settings = { path: '/nonexistent', keepCalls: 1, keepShapes: 0, keepRuns: 1 };
    const thread = new StoreThread({ settings, onNotice: () => {}, file });
    return () => thread.request({ do: 'start', filter: {}, limit: 1 });
  };
  const exits = start('process.exit(3)');
  await assert.rejects(exits(), /the database thread ended/);
  await assert.rejects(exits(), /the database thread ended/);
  await assert.rejects(start('throw new Error("broken")')(), /the database thread failed: broken/);
});

test('a thread with nothing to do ends and closes the file; the next request has a new one', async (t) => {
  const { path } = setUp(t);
  const thread = new StoreThread({
    settings: { path, keepCalls: 9, keepShapes: 0, keepRuns: 1 },
    onNotice: () => {},
    idleMs: 1,
  });
  const rows = ['a', 'b'].map((id) => ({ id, session: 's', uid: 0, json: '{}' }));
  for (const [count, row] of rows.entries()) {
    await thread.request({ do: 'write', rows: [row] });
    // SQLite removes its log when the last one closes the file.
    while (existsSync(`${path}-wal`)) await new Promise(setImmediate);
    const file = new DatabaseSync(path, { timeout: 10_000 });
    assert.equal(file.prepare('SELECT id FROM calls').all().length, count + 1);
    file.close();
  }
  const filter = {};
  const [start, again] = await Promise.all([
    thread.request({ do: 'start', filter, limit: 1 }),
    thread.close().then(() => thread.request({ do: 'start', filter, limit: 2 })),
  ]);
  assert.deepEqual([start, again], [2, 1]);
  await thread.close();
});

/** A process that adds records without end and says how many are written. */
function writer(path: string, wrap: string[] = [], journal?: string) {
  const url = (file: string) => JSON.stringify(new URL(file, import.meta.url).href);
  const script = `
    import { createLogger } from ${url('../../daemon/log.ts')};
    import { Store } from ${url('../../daemon/store/store.ts')};
    import { callRecord } from ${url('../lib/records.ts')};
    const store = new Store({ ...${JSON.stringify({ path, journal })}, log: createLogger({ level: 'fatal', fd: 2 }) });
    let number = 0;
    setInterval(() => {
      for (let i = 0; i < 20; i++) store.add(callRecord(number++));
    }, 5);
    setInterval(async () => {
      let found = 0;
      for await (const line of store.lines({ limit: 10_000 })) if (JSON.parse(line).id) found += 1;
      process.stdout.write(JSON.stringify({ ...store.counters(), found }) + '\\n');
    }, 20);`;
  const [program = '', ...rest] = [...wrap, process.execPath, '--input-type=module', '-e', script];
  return spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
}

async function* reports(child: ReturnType<typeof writer>) {
  let text = '';
  for await (const chunk of child.stdout.setEncoding('utf8')) {
    text += chunk;
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line);
  }
}

test('kill -9 while it writes loses nothing that was written, and leaves a sound file', async (t) => {
  const { open, path } = setUp(t);
  const child = writer(path);
  t.after(() => child.kill('SIGKILL'));
  let written = 0;
  for await (const report of reports(child)) {
    written = report.written;
    if (written > 300) child.kill('SIGKILL');
  }
  const found = await ids(open());
  assert.ok(found.length >= written, `${found.length} found, ${written} written`);
  assert.deepEqual(
    found,
    records(found.length).map(({ id }) => id),
  );
  assert.ok(!existsSync(`${path}.corrupt`));
});

test('kill -9 before anything is written loses nothing that is in the journal', async (t) => {
  const { journal, open, path, messages } = setUp(t, { journal: true });
  const other = new Promise<void>((resolve) => {
    const child = writer(path, [], journal);
    t.after(() => child.kill('SIGKILL'));
    child.once('exit', () => resolve());
    // Long before the first is written: the file is not even there.
    const look = setInterval(() => {
      if (!existsSync(journal) || statSync(journal).size === 0) return;
      child.kill('SIGKILL');
      clearInterval(look);
    }, 1);
  });
  await other;
  const left = readFileSync(journal, 'utf8').split('\n').filter(Boolean).length;
  // As if it was killed in the middle of a line, which begins with the end of the one before.
  writeFileSync(journal, '\n{"id":"half', { flag: 'a' });
  const store = open();
  const found = await ids(store);
  assert.ok(found.length > 0 && found.length >= left, `${found.length} found, ${left} left`);
  assert.deepEqual(
    found,
    records(found.length).map(({ id }) => id),
  );
  await settled(store);
  assert.equal(statSync(journal).size, 0);
  store.add(callRecord(7777));
  await store.close();
  assert.ok(!existsSync(journal), 'all is in the file');
  assert.deepEqual((await ids(open())).length, found.length + 1, 'each of them once');
  assert.deepEqual(await messages(0), []);
});

test('what cannot be written before the end is left for the next start', async (t) => {
  const { journal, messages, open, path } = setUp(t, { journal: true });
  const store = open();
  mkdirSync(path, { recursive: true });
  store.add(callRecord(1));
  await store.close();
  assert.deepEqual((await messages(2)).at(-1), 'finished calls left for the next start');
  rmSync(path, { recursive: true });
  assert.deepEqual(await ids(open()), [callRecord(1).id]);
  assert.ok(existsSync(journal));
});

test('a journal that somebody removes is there again with all that waits', async (t) => {
  const { journal, messages, open, path } = setUp(t, { journal: true });
  const store = open();
  mkdirSync(path, { recursive: true });
  store.add(callRecord(1));
  rmSync(journal);
  store.restoreJournal();
  assert.match(readFileSync(journal, 'utf8'), new RegExp(callRecord(1).id));
  rmSync(journal);
  store.add(callRecord(2));
  // The next daemon finds a copy: this one is as if it was killed here.
  const found = readFileSync(journal);
  await store.close();
  assert.deepEqual((await messages(2)).at(-1), 'finished calls left for the next start');
  rmSync(path, { recursive: true });
  writeFileSync(journal, found);
  assert.deepEqual(await ids(open()), [callRecord(1).id, callRecord(2).id]);
});

test('lines of the journal that are no records are counted, and keep no other from the file', async (t) => {
  const { journal, messages, open } = setUp(t, { journal: true });
  const row = { id: callRecord(1).id, session: 's', uid: 1000, json: JSON.stringify(callRecord(1)) };
  const run = { repository: '', shape: 'make', endedAt: '2026-01-01', peakBytes: 1, cutShort: false };
  const unusable = [
    { ...row, session: undefined },
    { ...row, uid: undefined },
    { ...row, uid: 'root' },
    { ...row, uid: 1.5 },
    { ...row, json: {} },
    { ...row, run: null },
    { ...row, run: { ...run, shape: undefined } },
    { ...row, run: { ...run, peakBytes: '1' } },
    null,
    7,
  ];
  const lines = [
    ...unusable,
    row,
    { ...row, id: callRecord(2).id, json: JSON.stringify(callRecord(2)), run },
  ];
  writeFileSync(journal, lines.map((line) => JSON.stringify(line)).join('\n'));
  const store = open();
  await settled(store);
  assert.deepEqual(await ids(store), [callRecord(1).id, callRecord(2).id]);
  const { dropped, errors, written } = store.counters();
  assert.deepEqual({ dropped, errors, written }, { dropped: unusable.length, errors: 0, written: 2 });
  assert.deepEqual(await messages(1), ['finished calls of an earlier daemon cannot be read']);
});

for (const [what, count, characters] of [
  ['more records than may wait', 2100, 10],
  ['more bytes than are read', 7000, 5000],
] as const) {
  test(`of a journal that holds ${what} the newest are taken over, and the others counted`, async (t) => {
    const { journal, messages, open } = setUp(t, { journal: true });
    const rows = Array.from({ length: count }, (_, number) => {
      const record = callRecord(number);
      // Of two bytes each: wherever the reading begins, it may be in the middle of one.
      const json = JSON.stringify({ ...record, command: 'ä'.repeat(characters / 2) });
      return { id: record.id, session: record.session, uid: record.uid, json };
    });
    writeFileSync(journal, rows.map((row) => `\n${JSON.stringify(row)}`).join(''));
    const store = open();
    const newest = rows.slice(-2048).map(({ id }) => id);
    assert.deepEqual(await ids(store), newest);
    await settled(store);
    const { dropped, written } = store.counters();
    assert.deepEqual({ dropped, written }, { dropped: count - newest.length, written: newest.length });
    assert.equal(statSync(journal).size, 0);
    assert.deepEqual(await messages(1), ['an earlier daemon left too many finished calls']);
  });
}

test('what finds the journal full is counted, and told once', async (t) => {
  const { journal, messages, open, path } = setUp(t, { journal: true });
  writeFileSync(journal, '');
  truncateSync(journal, 17 * 2 ** 20);
  mkdirSync(path, { recursive: true });
  const store = open();
  store.add(callRecord(1));
  store.add(callRecord(2));
  assert.equal(store.counters().unjournaled, 2);
  assert.equal(statSync(journal).size, 17 * 2 ** 20);
  const told = 'finished calls that wait are lost if the daemon is killed';
  assert.deepEqual(
    (await messages(1)).filter((message) => message === told),
    [told],
  );
});

test('a journal that cannot be had costs no record of a daemon that lives', async (t) => {
  const { journal, messages, open } = setUp(t, { journal: true });
  mkdirSync(journal);
  const store = open();
  store.add(callRecord(1));
  assert.deepEqual(await ids(store), [callRecord(1).id]);
  assert.deepEqual(await messages(1), ['finished calls that wait are lost if the daemon is killed']);
});

test('a full disk: answers from memory, and writes again when there is room', async (t) => {
  const { open, path } = setUp(t);
  // A limit on the size of files gives EFBIG where a full disk gives ENOSPC; it needs no privilege.
  const child = writer(path, ['bash', '-c', 'ulimit -S -f 128; exec "$@"', 'bash']);
  t.after(() => child.kill('SIGKILL'));
  let full: { written: number; pending: number } | undefined;
  let again = false;
  for await (const report of reports(child)) {
    if (full === undefined && report.errors > 0 && report.pending > 0) {
      assert.ok(report.found >= report.pending);
      full = report;
      const raise = spawn('prlimit', ['--pid', String(child.pid), '--fsize=unlimited']);
      assert.deepEqual(await once(raise, 'exit'), [0, null]);
    }
    again = full !== undefined && report.written > full.written + full.pending;
    if (again) child.kill('SIGTERM');
  }
  assert.ok(full !== undefined && full.written > 0, 'the limit was never reached');
  assert.ok(again);
  assert.ok((await ids(open())).length > full.written);
});

test('property: nothing is lost unseen, and no bound is passed', async (t) => {
  const step = fc.oneof(
    fc.record({ add: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ find: fc.integer({ min: 0, max: 600 }) }),
    fc.constant({ reopen: true }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 300 }),
      fc.array(step, { maxLength: 8 }),
      async (keepCalls, steps) => {
        const { open } = setUp(t, { keepCalls });
        let store = open();
        let added = 0;
        let addedHere = 0;
        for (const action of steps) {
          if ('add' in action) {
            for (const record of records(action.add, added)) store.add(record);
            added += action.add;
            addedHere += action.add;
          } else if ('find' in action) {
            const expected = Math.min(action.find, keepCalls, added);
            const newest = records(expected, added - expected).map(({ id }) => id);
            assert.deepEqual(await ids(store, { limit: action.find }), newest);
          } else {
            await store.close();
            store = open();
            addedHere = 0;
          }
          const { written, dropped, pending } = store.counters();
          assert.equal(written + dropped + pending, addedHere);
        }
        await store.close();
      },
    ),
    { numRuns: 10 },
  );
});

function commandRun(shape: string, mib: number, changes: Partial<CommandRun> = {}): CommandRun {
  const endedAt = new Date(Date.UTC(2026, 0, 1)).toISOString();
  return { repository: '/r', shape, peakBytes: mib * 2 ** 20, cutShort: false, endedAt, ...changes };
}

async function learnedOf(store: Store, filter: LearnedFilter = {}) {
  const found: Record<string, string[]> = {};
  for await (const { uid, repository, shape, observations } of store.learned(filter)) {
    found[`${uid} ${repository} ${shape}`] = observations.map(
      ({ peakBytes, cutShort }) => `${peakBytes / 2 ** 20}${cutShort ? '+' : ''}`,
    );
  }
  return found;
}

test('runs are kept by user, repository and command, the newest of each, over a restart', async (t) => {
  const bench = setUp(t, { keepShapes: 10, keepRuns: 3 });
  const first = bench.open();
  for (const [number, mib] of [10, 20, 30, 40].entries()) {
    first.add(callRecord(number), commandRun('npm test', mib, { cutShort: mib === 30 }));
  }
  first.add(callRecord(10), commandRun('make', 5));
  first.add(callRecord(11, { uid: 7 }), commandRun('npm test', 6, { repository: '' }));
  first.add(callRecord(12));
  const all = { '1000 /r npm test': ['20', '30+', '40'], '1000 /r make': ['5'], '7  npm test': ['6'] };
  assert.deepEqual(await learnedOf(first), all);
  await first.close();
  const second = bench.open();
  second.add(callRecord(20), commandRun('make', 7));
  assert.deepEqual(await learnedOf(second), { ...all, '1000 /r make': ['5', '7'] });
  assert.deepEqual(await learnedOf(second, { uid: 7 }), { '7  npm test': ['6'] });
  assert.deepEqual(await learnedOf(second, { uid: 1000, repository: '/r', shape: 'make' }), {
    '1000 /r make': ['5', '7'],
  });
});

test('commands that have not run for longest are forgotten, and only as many as have to be', async (t) => {
  const store = setUp(t, { keepShapes: 3, keepRuns: 2 }).open();
  const add = async (number: number, shape: string) => {
    store.add(callRecord(number), commandRun(shape, number));
    await learnedOf(store);
  };
  for (const [number, shape] of ['a', 'b', 'c', 'a', 'd'].entries()) await add(number, shape);
  assert.deepEqual(await learnedOf(store), {
    '1000 /r a': ['0', '3'],
    '1000 /r c': ['2'],
    '1000 /r d': ['4'],
  });
});

test('with no commands to be kept nothing is learned, and what was is forgotten', async (t) => {
  const bench = setUp(t);
  const before = setUp(t, { path: bench.path, keepShapes: 5, keepRuns: 5 }).open();
  before.add(callRecord(1), commandRun('make', 1));
  assert.deepEqual(await learnedOf(before), { '1000 /r make': ['1'] });
  await before.close();
  const store = bench.open();
  store.add(callRecord(2), commandRun('make', 2));
  assert.deepEqual(await learnedOf(store), {});
});

test('a call that is written twice is learned from once', async (t) => {
  const bench = setUp(t, { keepShapes: 5, keepRuns: 5 });
  // As a daemon does whose write had reached the file when its answer was lost.
  for (let start = 0; start < 2; start += 1) {
    const store = bench.open();
    store.add(callRecord(1), commandRun('make', 1));
    assert.deepEqual(await learnedOf(store), { '1000 /r make': ['1'] });
    await store.close();
  }
});

test('a file of the first version is taken over', async (t) => {
  const bench = setUp(t, { keepShapes: 5, keepRuns: 5 });
  mkdirSync(join(bench.path, '..'), { recursive: true });
  const old = new DatabaseSync(bench.path);
  old.exec(`${migrations[0]}; PRAGMA user_version = 1`);
  old.prepare('INSERT INTO calls (id, session, uid, record) VALUES (?, ?, ?, ?)').run('c1', 's', 0, '{}');
  old.close();
  const store = bench.open();
  store.add(callRecord(2), commandRun('make', 2));
  assert.deepEqual(await learnedOf(store), { '1000 /r make': ['2'] });
  const ids: string[] = [];
  for await (const line of store.lines({ limit: 10 })) ids.push(line);
  assert.equal(ids[0], '{}');
  assert.equal(ids.length, 2);
});

test('what was learned cannot be had from a file that cannot be opened: an error, and not nothing', async (t) => {
  // Below what is a file.
  const bench = setUp(t, { path: '/dev/null/calls.db', keepShapes: 5 });
  await assert.rejects(learnedOf(bench.open()));
});
