// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
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

test('a reader that does not read costs lines, not the daemon', async (t) => {
  const script = `
    import { createLogger } from ${JSON.stringify(new URL('../../daemon/log.ts', import.meta.url).href)};
    let dropped = 0;
    const log = createLogger({ level: 'info', onDrop: () => { dropped += 1; } });
    for (let i = 0; i < 200; i++) log.info({ text: 'x'.repeat(16 * 1024) }, 'line');
    setImmediate(() => process.send(dropped));`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [dropped] = await once(child, 'message');
  assert.ok(dropped > 0 && dropped < 200, `${dropped} lines dropped`);
});

test('a log whose reader has gone does not end the daemon', async () => {
  const script = `
    import { createLogger, flushLog } from ${JSON.stringify(new URL('../../daemon/log.ts', import.meta.url).href)};
    let dropped = 0;
    const log = createLogger({ level: 'info', onDrop: () => { dropped += 1; } });
    process.on('message', () => {
      log.info('line');
      setImmediate(function wait() {
        if (dropped === 0) { log.info('line'); setImmediate(wait); return; }
        flushLog(log);
        process.send('alive', () => process.exit(0));
      });
    });
    process.send('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  await once(child, 'message');
  child.stdout?.destroy();
  child.send('go');
  const [answer] = await once(child, 'message');
  assert.equal(answer, 'alive');
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
});
