// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Advice, Event, LiveCall, Monitor, SessionRecord } from '../../daemon/control/types.ts';
import { type Answer, lines, serve } from '../lib/control-server.ts';
import { callRecord } from '../lib/records.ts';
import { status } from '../lib/status.ts';

const main = fileURLToPath(new URL('../../daemon/cli/main.ts', import.meta.url));

interface RunOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly stdout?: 'pipe' | number;
  readonly uid?: number;
}

function start(args: readonly string[], { env = {}, stdout = 'pipe', uid }: RunOptions = {}) {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
    // Not the environment of whoever runs the tests: an agent's has settings that doctor looks at.
    env: { PATH: process.env.PATH, HOME: '/nonexistent', TZ: 'UTC', ...env },
    stdio: ['ignore', stdout, 'pipe'],
    ...(uid === undefined ? {} : { uid }),
  });
  return child;
}

async function run(args: readonly string[], options: RunOptions = {}) {
  const child = start(args, options);
  const [out, err, [code]] = await Promise.all([
    child.stdout ? text(child.stdout) : '',
    child.stderr ? text(child.stderr) : '',
    once(child, 'exit'),
  ]);
  return { code, out, err };
}

function directoryFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'agentrm-cli-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** Shown as so many hours for the next 50 minutes, however slow the tests are. */
const hoursAgo = (hours: number) => new Date(Date.now() - (hours * 60 + 10) * 60_000).toISOString();

const ended = [
  callRecord(1, { startedAt: hoursAgo(50), session: '7f3c9a52-1d0e-4b8e-9a77-0d8b1f6c2e11' }),
  callRecord(2, {
    startedAt: hoursAgo(3),
    agent: null,
    command: 'make\t-j8 \u001b[31m\u202e',
    outcome: 'oom',
    exitCode: null,
    signal: 'SIGKILL',
    memory: { ...callRecord(2).memory, highBytes: null, throttledMs: 320, frozenMs: 4200, oomKills: 1 },
  }),
];
const live: LiveCall = {
  id: 'c0000000000ff',
  session: 'session-a',
  uid: 1000,
  agent: 'claude-code',
  command: 'npm',
  startedAt: hoursAgo(1),
  state: 'frozen',
  memory: {
    highBytes: 2 ** 30,
    maxBytes: null,
    peakBytes: 2 ** 30,
    usedBytes: 2 ** 30,
    throttledMs: 10,
    frozenMs: 900,
    highEvents: 7,
  },
  decisions: [],
};
const session: SessionRecord = {
  id: 'session-a',
  uid: 1000,
  agent: 'claude-code',
  cgroup: '/sys/fs/cgroup/agentrm/s0123456789ab',
  startedAt: hoursAgo(20),
  lastActiveAt: hoursAgo(2),
  state: 'running',
  class: 'interactive',
  liveCalls: 1,
  frozenCalls: 0,
  finishedCalls: 12,
  usedBytes: 1.5 * 2 ** 30,
  lanes: 1,
  queuedTurns: 2,
  finishedTurns: 31,
  usedTokens: 123_456,
  openRuns: 1,
};
/** Known by its turns alone, from where the kernel knows nobody. */
const turnsOnly: SessionRecord = {
  ...session,
  id: 'session-b\u001b[31m',
  uid: null,
  agent: null,
  state: 'created',
  class: 'background',
  cgroup: null,
  liveCalls: 0,
  finishedCalls: 0,
  usedBytes: 0,
  lanes: 0,
  queuedTurns: 1,
  finishedTurns: 0,
  usedTokens: 0,
};
const monitor: Monitor = {
  time: '2026-01-31T13:45:01.123Z',
  host: {
    totalBytes: 16 * 2 ** 30,
    availableBytes: 5.5 * 2 ** 30,
    pressure: { cpu: 12.34, memory: 0, io: null },
  },
  pool: status().pool,
  calls: status().calls,
  sessions: [
    { ...turnsOnly, startedAt: '2026-01-31T13:40:01.123Z', lastActiveAt: '2026-01-31T13:44:01.123Z' },
    { ...session, startedAt: '2026-01-31T10:40:01.123Z', lastActiveAt: '2026-01-31T13:45:01.123Z' },
    { ...turnsOnly, id: 'over', state: 'terminated' },
  ],
  liveCalls: [{ ...live, startedAt: '2026-01-31T13:44:01.123Z' }],
  proxy: {
    queued: 3,
    running: 1,
    delayed: 1,
    gated: 1,
    held: 1,
    pressure: { memory: 0.12, poolShort: true },
    agents: { limit: 4, running: 2, waiting: 1 },
    upstreams: [
      {
        provider: 'anthropic',
        credential: '0123456789abcdef',
        modelClass: 'claude-sonnet-4',
        lanes: { held: 1, limit: 32, fixed: false },
        levels: [
          { level: 'interactive', queued: 2, running: 1, oldestWaitMs: 1_200 },
          { level: 'subagent', queued: 0, running: 0, oldestWaitMs: 0 },
          { level: 'background', queued: 1, running: 0, oldestWaitMs: 65_000 },
        ],
        buckets: [
          { resource: 'requests', limitPerMin: 50, available: 12.7, reserved: 1 },
          { resource: 'inputTokens', limitPerMin: 400_000, available: -1_500, reserved: 1_000 },
          { resource: 'outputTokens', limitPerMin: null, available: null, reserved: 800 },
        ],
        pausedMs: 3_000,
        breaker: 'half-open',
        subscription: {
          status: 'allowed_warning',
          claim: 'five_hour',
          fallback: false,
          resetMs: 3_600_000,
          windows: [
            { window: '5h', status: 'allowed_warning', used: 0.914, resetMs: 3_600_000 },
            { window: '7d', status: 'allowed', used: null, resetMs: null },
          ],
        },
      },
    ],
    sessions: [],
    omitted: 7,
  },
};
const happened: Event[] = [
  {
    seq: 1,
    time: '2026-01-31T13:45:01.123Z',
    kind: 'call-start',
    session: 'session-a',
    call: 'c1',
    highBytes: 2 ** 27,
  },
  {
    seq: 2,
    time: '2026-01-31T13:45:02.000Z',
    kind: 'freeze',
    call: 'c1',
    usageBytes: 130 * 2 ** 20,
    agent: null,
    reason: 'over the line',
  },
  {
    seq: 3,
    time: '2026-01-31T13:45:03.000Z',
    kind: 'call-end',
    session: 'session-a',
    call: 'c1',
    record: ended[0],
  },
];

const quantile = (mib: number, atLeast = false) => ({ bytes: mib * 2 ** 20, atLeast });
const advised: Advice[] = [
  {
    uid: 1000,
    repository: '/home/a/app',
    command: 'npm test',
    runs: 12,
    cutShort: 0,
    lastRunAt: hoursAgo(1),
    p50: quantile(80),
    p95: quantile(100),
    max: quantile(110),
    intent: 'memory.high=128M',
    rule: { command: 'npm test', intent: 'memory.high=128M' },
  },
  {
    uid: 1000,
    repository: null,
    command: 'npm test',
    runs: 20,
    cutShort: 3,
    lastRunAt: hoursAgo(1),
    p50: quantile(300),
    p95: quantile(1500, true),
    max: quantile(1500, true),
    intent: 'memory.high=3G',
    rule: { command: 'npm test', intent: 'memory.high=3G' },
  },
  {
    uid: 1000,
    repository: '/home/a/\u001b[2Jb',
    command: '*/gradlew build',
    runs: 10,
    cutShort: 0,
    lastRunAt: hoursAgo(1),
    p50: quantile(700),
    p95: quantile(800),
    max: quantile(800),
    intent: 'memory.high=1G',
    rule: { command: '*/gradlew build', intent: 'memory.high=1G' },
  },
];

const answers: Record<string, Answer> = {
  '/v1/status': [200, JSON.stringify(status())],
  '/v1/sessions': [200, JSON.stringify({ sessions: [session, turnsOnly] })],
  '/v1/monitor': [200, JSON.stringify(monitor)],
  '/v1/calls?limit=10000000': [200, lines(ended)],
  '/v1/calls?limit=20&live=1': [200, lines([...ended, live])],
  '/v1/calls?limit=1&session=a+b%26c&live=1': [200, lines([live])],
  '/v1/events': [200, lines(happened)],
  '/v1/advice': [200, lines(advised)],
  '/v1/doctor': [200, JSON.stringify({ checks: [{ name: 'kernel', status: 'ok', detail: '6.12.48' }] })],
};

const help = /^Usage: agentrm \[options\] \[command\]\n/;
const table: {
  args: string;
  code: number;
  out?: RegExp | string;
  err?: RegExp | string;
  changes?: Record<string, Answer>;
}[] = [
  { args: '--help', code: 0, out: help },
  { args: '', code: 2, err: help },
  { args: 'help', code: 0, out: help },
  { args: 'help calls', code: 0, out: /^Usage: agentrm calls \[options\]\n[\s\S]*--session <id>/ },
  { args: '--version', code: 0, out: /^\d+\.\d+\.\d+\n$/ },
  { args: 'version', code: 0, out: /^agentrm \d+\.\d+\.\d+, Node \d+\.\d+\.\d+\n$/ },
  { args: 'version --json', code: 0, out: /^\{"version":"\d+\.\d+\.\d+","node":"\d+\.\d+\.\d+"\}\n$/ },
  { args: 'calls --help', code: 0, out: /--session <id>[\s\S]*--json/ },
  { args: 'frobnicate', code: 2, err: /^agentrm: unknown command 'frobnicate'\n$/ },
  { args: 'constructor', code: 2, err: /^agentrm: unknown command 'constructor'\n$/ },
  { args: 'status --frobnicate', code: 2, err: /^agentrm: unknown option '--frobnicate'\n/ },
  { args: 'status more', code: 2, err: /^agentrm: too many arguments/ },
  { args: 'calls --limit', code: 2, err: /^agentrm: option '--limit <n>' argument missing\n/ },
  { args: 'calls --limit -1', code: 2, err: /whole number from 0 to 10000000/ },
  { args: 'calls --limit 1e3', code: 2, err: /whole number from 0 to 10000000/ },
  { args: 'calls --limit 10000001', code: 2, err: /whole number from 0 to 10000000/ },
  { args: '--socket= status', code: 2, err: /It must be a path/ },
  { args: 'advise', code: 0, out: readFixture('advise') },
  {
    args: 'advise --json',
    code: 0,
    out: lines(advised).replaceAll('\u001b', '\\u001b'),
  },
  { args: 'advise', code: 0, out: /^Nothing to advise yet/, changes: { '/v1/advice': [200, ''] } },
  {
    args: 'advise --json',
    code: 1,
    err: /^agentrm: the database does not answer\n$/,
    changes: { '/v1/advice': [500, '{"error":"the database does not answer"}'] },
  },
  {
    args: 'calls --json',
    code: 1,
    out: lines(ended.slice(-1)).replaceAll('\u001b', '\\u001b').replaceAll('\u202e', '\\u202e'),
    err: 'agentrm: not all calls are listed: the database does not answer\n',
    changes: { '/v1/calls?limit=10000000': incomplete(ended.slice(-1)) },
  },
  {
    args: 'calls',
    code: 1,
    out: /^CALL .*COMMAND\n$/,
    err: 'agentrm: not all calls are listed: the database does not answer\n',
    changes: { '/v1/calls?limit=20&live=1': incomplete([]) },
  },
  { args: 'status', code: 0, out: readFixture('status') },
  { args: 'status --json', code: 0, out: `${JSON.stringify(status())}\n` },
  { args: '--json status', code: 0, out: `${JSON.stringify(status())}\n` },
  {
    args: 'status',
    code: 5,
    out: /^enforcement {2}by a poller in user space$[\s\S]*^because {6}no BPF: EPERM$[\s\S]*^degraded {5}no io controller$/m,
    changes: {
      '/v1/status': [
        200,
        JSON.stringify(
          status({
            backend: {
              mode: 'user',
              hooks: [],
              reason: 'no BPF: EPERM',
              degraded: ['no BPF: EPERM', 'no io controller'],
            },
          }),
        ),
      ],
    },
  },
  { args: 'sessions', code: 0, out: readFixture('sessions') },
  { args: 'sessions --json', code: 0, out: /"id":"session-b\\u001b\[31m","uid":null/ },
  { args: 'top --once', code: 0, out: readFixture('top') },
  { args: 'top --json', code: 0, out: `${JSON.stringify(monitor)}\n`.replaceAll('\u001b', '\\u001b') },
  {
    args: 'top --once',
    code: 0,
    out: /^proxy {5}none, or it does not answer$/m,
    changes: { '/v1/monitor': [200, JSON.stringify({ ...monitor, proxy: null })] },
  },
  {
    args: 'top --once',
    code: 4,
    err: 'agentrm: only for root\n',
    changes: { '/v1/monitor': [403, '{"error":"only for root"}'] },
  },
  { args: 'top --interval 0', code: 2, err: /0\.1 to 3600 seconds/ },
  {
    args: 'top',
    code: 3,
    err: 'agentrm: the daemon closed the connection\n',
    changes: { '/v1/monitor': (response) => response.destroy() },
  },
  { args: 'calls', code: 0, out: readFixture('calls') },
  { args: 'calls --limit 1 --session a_b&c', code: 0, out: /c0000000000ff/ },
  { args: 'events', code: 0, out: readFixture('events') },
  { args: 'events --json', code: 0, out: lines(happened) },
  { args: 'doctor', code: 0, out: readFixture('doctor') },
  {
    args: 'doctor',
    code: 1,
    out: /^fail {2}enforcement {2}none: every command runs unmanaged: no cgroup v2$/m,
    changes: {
      '/v1/status': [
        200,
        JSON.stringify(
          status({
            backend: { mode: 'none', hooks: [], reason: 'no cgroup v2', degraded: ['no cgroup v2'] },
          }),
        ),
      ],
    },
  },
  {
    args: 'doctor --json',
    code: 5,
    out: /"name":"kernel","status":"warn","detail":"old","fix":"Update it."/,
    changes: {
      '/v1/doctor': [
        200,
        JSON.stringify({ checks: [{ name: 'kernel', status: 'warn', detail: 'old', fix: 'Update it.' }] }),
      ],
    },
  },
  {
    args: 'calls',
    code: 4,
    err: 'agentrm: only for root\n',
    changes: { '/v1/calls?limit=20&live=1': [403, '{"error":"only for root"}'] },
  },
  {
    args: 'status',
    code: 1,
    err: 'agentrm: it ?[31m broke\n',
    changes: { '/v1/status': [500, '{"error":"it \\u001b[31m\\nbroke"}'] },
  },
  {
    args: 'status',
    code: 1,
    err: 'agentrm: the daemon answered 502\n',
    changes: { '/v1/status': [502, '<html>'] },
  },
  {
    args: 'status',
    code: 1,
    err: /^agentrm: the daemon's answer is no JSON: /,
    changes: { '/v1/status': [200, 'hello'] },
  },
  {
    args: 'status',
    code: 3,
    err: /^agentrm: .*(socket hang up|closed the connection)\n$/,
    changes: { '/v1/status': (response) => response.destroy() },
  },
  {
    args: 'calls --json',
    code: 3,
    out: `${JSON.stringify(ended[0])}\n`,
    err: 'agentrm: the daemon closed the connection\n',
    changes: {
      '/v1/calls?limit=10000000': (response) => {
        response.writeHead(200, { 'content-length': 10_000 });
        response.write(`${JSON.stringify(ended[0])}\n{"id":`, () => response.destroy());
      },
    },
  },
];

/** A list that lacks what only the database has. */
function incomplete(records: readonly unknown[]): Answer {
  return (response) => {
    response.writeHead(200, { trailer: 'agentrm-incomplete' });
    response.write(lines(records));
    response.addTrailers({ 'agentrm-incomplete': 'the database does not answer' });
    response.end();
  };
}

/** What a person sees, as a file that can be read. */
function readFixture(name: string): string {
  return readFileSync(new URL(`./cli-output/${name}.txt`, import.meta.url), 'utf8');
}

for (const { args, code, out = '', err = '', changes } of table) {
  test(`agentrm ${args}: exit ${code}${changes ? `, given ${Object.keys(changes)}` : ''}`, async (t) => {
    const { socket } = await serve(t, { ...answers, ...changes });
    const given = args
      .split(' ')
      .filter(Boolean)
      .map((word) => word.replace('_', ' '));
    const ran = await run(given, { env: { AGENTRM_SOCKET: socket } });
    for (const [what, expected] of [
      ['out', out],
      ['err', err],
    ] as const) {
      if (typeof expected === 'string') assert.equal(ran[what], expected);
      else assert.match(ran[what], expected);
    }
    assert.equal(ran.code, code);
  });
}

test('calls --json gives back each record, with nothing in it that a terminal acts on', async (t) => {
  const { socket } = await serve(t, answers);
  const { out, code } = await run(['calls', '--json', '--socket', socket]);
  assert.equal(code, 0);
  assert.deepEqual(
    out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    ended,
  );
  assert.doesNotMatch(out.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u);
});

test('no daemon: exit 3 and the path that was tried', async (t) => {
  const directory = directoryFor(t);
  const missing = join(directory, 'none.sock');
  const file = join(directory, 'file');
  writeFileSync(file, '');
  for (const path of [missing, file, `${file}/below`]) {
    assert.deepEqual(await run(['status', '--socket', path]), {
      code: 3,
      out: '',
      err: `agentrm: no daemon at ${path}\n`,
    });
  }
  const long = `/${'x'.repeat(200)}`;
  assert.deepEqual(await run(['status', '--socket', long]), {
    code: 3,
    out: '',
    err: `agentrm: no daemon at ${long}: longer than the path of a socket can be\n`,
  });
});

test("without a choice the user's own daemon is asked too", async (t) => {
  const { socket } = await serve(t, answers);
  const runtime = directoryFor(t);
  mkdirSync(join(runtime, 'agentrm'));
  symlinkSync(socket, join(runtime, 'agentrm/agentrm.sock'));
  const { code, out } = await run(['sessions', '--json'], { env: { XDG_RUNTIME_DIR: runtime } });
  assert.deepEqual(
    { code, out },
    { code: 0, out: lines([session, turnsOnly]).replaceAll('\u001b', '\\u001b') },
  );
});

test('a socket that this user may not open: exit 4', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('becoming another user needs root');
  const { socket } = await serve(t, answers);
  chmodSync(socket, 0o600);
  chmodSync(join(socket, '..'), 0o755);
  const { code, err } = await run(['status', '--socket', socket], { uid: 65534 });
  assert.deepEqual({ code, err }, { code: 4, err: `agentrm: ${socket}: permission denied\n` });
});

test('a daemon that does not answer, or not to the end: exit 1 after a while', async (t) => {
  const { socket } = await serve(t, {
    '/v1/status': () => {},
    '/v1/calls?limit=10000000': (response) => response.writeHead(200).write(`${JSON.stringify(ended[0])}\n{`),
  });
  const err = `agentrm: the daemon at ${socket} does not answer\n`;
  const [none, half] = await Promise.all([
    run(['status', '--socket', socket]),
    run(['calls', '--json', '--socket', socket]),
  ]);
  assert.deepEqual(none, { code: 1, out: '', err });
  assert.deepEqual(half, { code: 1, out: `${JSON.stringify(ended[0])}\n`, err });
});

test('something else that listens there: exit 1', async (t) => {
  const socket = join(directoryFor(t), 'other.sock');
  const server = createServer((connection) => connection.end('SSH-2.0-OpenSSH_9.2\r\n'));
  t.after(() => server.close());
  server.listen(socket);
  await once(server, 'listening');
  const { code, err } = await run(['status', '--socket', socket]);
  assert.equal(code, 1);
  assert.match(err, /^agentrm: .*Parse Error/);
});

test('calls --follow: what has ended, then what ends, nothing twice, only of the session', async (t) => {
  const later = callRecord(9, { session: 'session-a' });
  const { socket, asked } = await serve(t, {
    '/v1/events': [200, lines(happened)],
    '/v1/calls?limit=20&session=session-a': [200, lines(ended.slice(1))],
    '/v1/events?follow=1': (response) => {
      const end = (seq: number, record: ReturnType<typeof callRecord>): Event => ({
        seq,
        time: '2026-01-31T13:46:00.000Z',
        kind: 'call-end',
        session: record.session,
        call: record.id,
        record,
      });
      response.writeHead(200);
      response.write(lines(happened));
      // Ended between the two questions: in the list already.
      response.write(lines([end(4, callRecord(2, { session: 'session-a' }))]));
      response.write(
        lines([end(5, callRecord(8, { session: 'another' })), { seq: 6, time: '', kind: 'lost', count: 3 }]),
      );
      response.end(lines([end(7, later)]));
    },
  });
  const { code, out, err } = await run([
    'calls',
    '-f',
    '--json',
    '--session',
    'session-a',
    '--socket',
    socket,
  ]);
  assert.deepEqual(
    out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).id),
    [ended[1]?.id, later.id],
  );
  assert.equal(
    err,
    'agentrm: 3 events lost: too slow to follow\nagentrm: the daemon closed the connection\n',
  );
  assert.equal(code, 3);
  assert.deepEqual(asked, ['/v1/events', '/v1/calls?limit=20&session=session-a', '/v1/events?follow=1']);
});

test('events -f: each event is there as soon as it comes', async (t) => {
  let respond: ((line: string) => void) | undefined;
  const { socket } = await serve(t, {
    '/v1/events?follow=1': (response) => {
      response.writeHead(200);
      response.flushHeaders();
      respond = (line) => response.write(line);
      response.write(lines(happened.slice(0, 1)));
    },
  });
  const child = start(['events', '-f', '--json', '--socket', socket]);
  t.after(() => child.kill());
  assert.ok(child.stdout);
  const shown = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.deepEqual(JSON.parse(String((await shown.next()).value)), happened[0]);
  respond?.(lines(happened.slice(1, 2)));
  assert.deepEqual(JSON.parse(String((await shown.next()).value)), happened[1]);
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'exit'), [null, 'SIGINT']);
});

test('a reader that has had enough ends it quietly', async (t) => {
  const many = lines(Array.from({ length: 20_000 }, (_, number) => callRecord(number)));
  const { socket } = await serve(t, { '/v1/calls?limit=10000000': [200, many] });
  const child = start(['calls', '--json', '--socket', socket]);
  assert.ok(child.stdout && child.stderr);
  child.stdout.once('data', () => child.stdout?.destroy());
  const [err, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
  assert.deepEqual({ code, err }, { code: 0, err: '' });
});

test('output that cannot be written: exit 1', async (t) => {
  const { socket } = await serve(t, answers);
  const { code, err } = await run(['status', '--socket', socket], { stdout: openSync('/dev/full', 'w') });
  assert.deepEqual(
    { code, err },
    { code: 1, err: 'agentrm: write: ENOSPC: no space left on device, write\n' },
  );
});

test('colours only where they are asked for', async (t) => {
  const { socket } = await serve(t, answers);
  const args = ['calls', '--socket', socket];
  const colour = '\u001b[';
  assert.ok(!(await run(args)).out.includes(colour));
  assert.ok((await run(args, { env: { FORCE_COLOR: '1' } })).out.includes(`${colour}32mok`));
  assert.ok(!(await run([...args, '--no-color'], { env: { FORCE_COLOR: '1' } })).out.includes(colour));
  assert.ok(!(await run(args, { env: { NO_COLOR: '1' } })).out.includes(colour));
});

test('doctor without a daemon looks at the host itself', async (t) => {
  const { code, out } = await run(['doctor', '--json', '--socket', join(directoryFor(t), 'none.sock')]);
  const { checks } = JSON.parse(out);
  const names: string[] = checks.map(({ name }: { name: string }) => name);
  assert.equal(checks[0].name, 'daemon');
  assert.equal(checks[0].status, 'warn');
  for (const name of ['kernel', 'cgroup', 'btf', 'psi', 'swap', 'agentrm-bash', 'claude-code'])
    assert.ok(names.includes(name), name);
  assert.equal(code, checks.some(({ status }: { status: string }) => status === 'fail') ? 1 : 5);
});

test("doctor finds Claude Code's own memory cap, in the environment and in its settings", async (t) => {
  const { socket } = await serve(t, answers);
  const home = directoryFor(t);
  mkdirSync(join(home, '.claude'));
  const settings = join(home, '.claude/settings.json');
  const variable = 'CLAUDE_CODE_TOOL_MEMORY_LIMIT';
  const check = async (env: NodeJS.ProcessEnv, content: string) => {
    writeFileSync(settings, content);
    const { code, out } = await run(['doctor', '--json', '--socket', socket], {
      env: { HOME: home, ...env },
    });
    const { checks } = JSON.parse(out);
    const { status, detail } = checks.find(({ name }: { name: string }) => name === 'claude-code');
    return `${code} ${status} ${detail.split(':')[0]}`;
  };
  assert.equal(await check({ [variable]: '4G' }, '{}'), `5 warn ${variable}=4G (environment)`);
  assert.equal(await check({ [variable]: 'OFF' }, 'no json'), '0 ok has no memory cap of its own');
  assert.equal(
    await check({}, JSON.stringify({ env: { [variable]: 2048 } })),
    `5 warn ${variable}=2048 (${settings})`,
  );
  assert.equal(
    await check({}, JSON.stringify({ env: { [variable]: '0' } })),
    '0 ok has no memory cap of its own',
  );
});

test('check-config: a good file, a bad one, none', async (t) => {
  const directory = directoryFor(t);
  const good = join(directory, 'good.yaml');
  const bad = join(directory, 'bad.yaml');
  writeFileSync(good, 'log:\n  level: debug\n');
  writeFileSync(bad, 'log:\n  level: loud\nfrobnicate: 1\n');
  assert.deepEqual(await run(['check-config', good]), { code: 0, out: `${good}: ok\n`, err: '' });
  const { code, out, err } = await run(['check-config', bad]);
  assert.deepEqual({ code, out }, { code: 1, out: '' });
  assert.match(err, new RegExp(`^${bad}:2:10: log\\.level: .*\\n${bad}:3:1: frobnicate: unknown key\\n$`));
  const json = await run(['check-config', bad, '--json']);
  assert.equal(json.code, 1);
  const report = JSON.parse(json.out);
  assert.deepEqual([report.ok, report.files, report.problems.length], [false, [bad], 2]);
  const missing = await run(['check-config', join(directory, 'none.yaml')]);
  assert.equal(missing.code, 1);
  assert.match(missing.err, /none\.yaml: no such file\n$/);
});

test('check-config: without a file those of an ordinary user count too, and no setting of this shell', async (t) => {
  const uid = process.getuid?.() === 0 ? 65_534 : undefined;
  const directory = directoryFor(t);
  chmodSync(directory, 0o755);
  const own = join(directory, 'agentrm/agentrmd.yaml');
  mkdirSync(join(directory, 'agentrm'));
  writeFileSync(own, 'frobnicate: 1\n');
  const env = { XDG_CONFIG_HOME: directory, AGENTRM_LOG_LEVEL: 'loud' };
  const { code, out, err } = await run(['check-config'], { env, ...(uid === undefined ? {} : { uid }) });
  assert.deepEqual({ code, out, err }, { code: 1, out: '', err: `${own}:1:1: frobnicate: unknown key\n` });
});
