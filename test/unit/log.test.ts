// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createLogger, flushLog, isJournal, type LogOptions } from '../../daemon/log.ts';

function capture(t: TestContext, options: Omit<LogOptions, 'fd'>) {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-log-'));
  const path = join(directory, 'log');
  const fd = openSync(path, 'a');
  const log = createLogger({ ...options, fd });
  t.after(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  return {
    log,
    lines: () => {
      flushLog(log);
      return readFileSync(path, 'utf8').split('\n').slice(0, -1);
    },
  };
}

test('a line is one JSON object with level, time, pid, component, fields and message', (t) => {
  const { log, lines } = capture(t, { level: 'info' });
  log
    .child({ component: 'store' })
    .warn({ usedBytes: 5, err: new Error('disk\nfull') }, 'records kept in memory');
  const [line, ...rest] = lines();
  assert.deepEqual(rest, []);
  const { time, err, ...fields } = JSON.parse(line ?? '');
  assert.deepEqual(fields, {
    level: 'warn',
    pid: process.pid,
    component: 'store',
    usedBytes: 5,
    msg: 'records kept in memory',
  });
  assert.equal(new Date(time).toISOString(), time);
  assert.equal(err.message, 'disk\nfull');
});

test('what is below the level is not written', (t) => {
  const { log, lines } = capture(t, { level: 'error' });
  log.warn('not this');
  log.error('but this');
  assert.deepEqual(
    lines().map((line) => JSON.parse(line).msg),
    ['but this'],
  );
});

test('under journald each line begins with the priority of its level', (t) => {
  const { log, lines } = capture(t, { level: 'trace', journal: true });
  const child = log.child({ component: 'x' });
  for (const level of ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const) child[level](level);
  assert.deepEqual(
    lines().map((line) => [line.slice(0, 3), JSON.parse(line.slice(3)).level]),
    [
      ['<7>', 'trace'],
      ['<7>', 'debug'],
      ['<6>', 'info'],
      ['<4>', 'warn'],
      ['<3>', 'error'],
      ['<2>', 'fatal'],
    ],
  );
});

test('journald is recognised by the device and inode of the descriptor', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-log-'));
  const fd = openSync(join(directory, 'log'), 'a');
  t.after(() => {
    rmSync(directory, { recursive: true });
  });
  const { dev, ino } = fstatSync(fd);
  assert.equal(isJournal({ JOURNAL_STREAM: `${dev}:${ino}` }, fd), true);
  assert.equal(isJournal({ JOURNAL_STREAM: `${dev}:${ino + 1}` }, fd), false);
  assert.equal(isJournal({ JOURNAL_STREAM: '' }, fd), false);
  assert.equal(isJournal({}, fd), false);
  closeSync(fd);
  assert.equal(isJournal({ JOURNAL_STREAM: `${dev}:${ino}` }, fd), false);
});

/** Runs a module with a logger to a pipe, whose reading end is `reader`. */
function logging(t: TestContext, code: string) {
  const module = `
    import { createLogger, flushLog } from ${JSON.stringify(new URL('../../daemon/log.ts', import.meta.url).href)};
    let dropped = 0;
    const log = createLogger({ level: 'info', onDrop: () => { dropped += 1; } });
    ${code}`;
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-log-'));
  const path = join(directory, 'pipe');
  // Not the pipe that spawn makes: that is a socket.
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writer = openSync(path, 'w');
  const child = spawn(process.execPath, ['--input-type=module', '-e', module], {
    stdio: ['ignore', writer, 'inherit', 'ipc'],
  });
  closeSync(writer);
  t.after(() => {
    child.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  });
  return { child, reader };
}

test('the last words before the end are written', async (t) => {
  const { child, reader } = logging(
    t,
    `
    for (let i = 0; i < 3; i++) log.info({ i }, 'line');
    setImmediate(() => setImmediate(() => {
      log.fatal({ i: 3 }, 'cannot go on');
      flushLog(log);
      process.exit(1);
    }));`,
  );
  assert.deepEqual(await once(child, 'exit'), [1, null]);
  const lines = readFileSync(reader, 'utf8').split('\n').slice(0, -1);
  closeSync(reader);
  assert.deepEqual(lines.map((line) => JSON.parse(line).i).sort(), [0, 1, 2, 3]);
});

test('a reader that does not read costs lines, and neither stops nor keeps the daemon', async (t) => {
  const { child, reader } = logging(
    t,
    `
    for (let i = 0; i < 200; i++) log.info({ text: 'x'.repeat(16 * 1024) }, 'line');
    setTimeout(() => {
      for (let i = 0; i < 200; i++) log.info({ text: 'x'.repeat(16 * 1024) }, 'line');
      flushLog(log);
      process.send(dropped, () => process.exit(7));
    }, 200);`,
  );
  t.after(() => child.kill('SIGKILL'));
  const [dropped] = await once(child, 'message');
  assert.ok(dropped > 100 && dropped < 400, `${dropped} lines dropped`);
  assert.deepEqual(await once(child, 'exit'), [7, null]);
  closeSync(reader);
});

test('a reader that has gone costs lines, and neither ends nor keeps the daemon', async (t) => {
  const { child, reader } = logging(
    t,
    `
    process.on('message', function tick() {
      log.info('line');
      if (dropped < 3) { setImmediate(tick); return; }
      log.info('line');
      flushLog(log);
      process.send(dropped, () => process.exit(7));
    });
    process.send('ready');`,
  );
  t.after(() => child.kill('SIGKILL'));
  await once(child, 'message');
  closeSync(reader);
  child.send('go');
  assert.deepEqual((await once(child, 'message'))[0], 4);
  assert.deepEqual(await once(child, 'exit'), [7, null]);
});

test('a descriptor that is not open is refused at once', () => {
  assert.throws(() => createLogger({ level: 'info', fd: 999_999 }), { code: 'EBADF' });
});

test('a file that others write to from the same descriptor is written over by nobody', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-log-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'log');
  // As after `{ agentrmd & others; } > log`: one position for all, and no O_APPEND.
  const fd = openSync(path, 'w');
  const log = createLogger({ level: 'info', fd });
  for (const word of ['first', 'second']) {
    log.info(word);
    flushLog(log);
    writeSync(fd, `${word} of others\n`);
  }
  closeSync(fd);
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  assert.deepEqual(
    lines.map((line) => (line.startsWith('{') ? JSON.parse(line).msg : line)),
    ['first', 'first of others', 'second', 'second of others'],
  );
});
