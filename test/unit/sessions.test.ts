// SPDX-License-Identifier: Apache-2.0
// What the two halves know of a session: its name, whose it is, one picture of it, and what they tell each other.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { ProxySession } from '../../daemon/control/types.ts';
import { type CallsMessage, parseClass, parseEvent, parseMonitor } from '../../daemon/core/messages.ts';
import { proxyMonitor } from '../../daemon/core/monitor.ts';
import { isPoolShort } from '../../daemon/policy/pool-demand.ts';
import { type Peer, Peers, uidIn } from '../../daemon/proxy/peers.ts';
import { CallsFeed, type FedCall } from '../../daemon/session/calls-feed.ts';
import { SessionClasses } from '../../daemon/session/classes.ts';
import { FrozenFeed } from '../../daemon/session/frozen-feed.ts';
import { sessionKey, sessionName } from '../../daemon/session/name.ts';
import { type CallSession, sessionRecords, stateOf } from '../../daemon/session/picture.ts';
import { unservedCalls } from '../../daemon/toolcall/fed-calls.ts';
import { leaseOf, SchedulerLab } from '../lib/scheduler.ts';

test('a session is one user’s: no id can be taken for that of another', () => {
  for (const [uid, id] of [
    [0, 'a'],
    [1000, '0:a'],
    [null, '1000:a'],
    [null, ''],
  ] as const)
    assert.deepEqual(sessionName(sessionKey(uid, id)), { uid, id });
  assert.equal(new Set([sessionKey(null, '0:a'), sessionKey(0, 'a'), sessionKey(1, 'a')]).size, 3);
});

describe('the user of a connection', () => {
  const ends = { remoteAddress: '127.0.0.1', remotePort: 49_436, localAddress: '127.0.0.1', localPort: 8484 };
  const line = (peer: string, own: string, uid: number, inode: number) =>
    Buffer.from(
      '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n' +
        `   0: ${own} ${peer} 01 00000000:00000000 00:00000000 00000000    42        0 5 1 0 20 4 30 10 -1\n` +
        `   1: ${peer} ${own} 01 00000000:00000000 00:00000000 00000000  ${uid}        0 ${inode} 1 0 20 4 30 10 -1\n`,
    );

  test('is that of the other end, in any form of its address', () => {
    const four = ['0100007F:C11C', '0100007F:2124'] as const;
    const mapped = four.map((name) => `0000000000000000FFFF0000${name}`) as [string, string];
    const six = ['00000000000000000000000001000000:C11C', '00000000000000000000000001000000:2124'] as const;
    const loopback = { remoteAddress: '::1', localAddress: '::1' };
    assert.equal(uidIn(line(...four, 1000, 77), ends), 1000);
    assert.equal(uidIn(line(...mapped, 1000, 77), ends), 1000);
    assert.equal(uidIn(line(...four, 1000, 77), { ...ends, remoteAddress: '::ffff:127.0.0.1' }), 1000);
    assert.equal(uidIn(line(...six, 1000, 77), { ...ends, ...loopback }), 1000);
  });

  test('is not known of one that is closed, of another, or from elsewhere', () => {
    const table = line('0100007F:C11C', '0100007F:2124', 0, 0);
    assert.equal(uidIn(table, ends), null, 'what has no inode has no owner, and not root for one');
    const open = line('0100007F:C11C', '0100007F:2124', 1000, 7);
    for (const other of [{ remotePort: 49_437 }, { localPort: 8485 }, { remoteAddress: '10.0.0.1' }])
      assert.equal(uidIn(open, { ...ends, ...other }), null, JSON.stringify(other));
    assert.equal(uidIn(Buffer.alloc(0), ends), null);
  });

  test('is found for each of many that come at once, and null without /proc', async (t) => {
    const accepted: Socket[] = [];
    const server = createServer((socket) => accepted.push(socket)).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const address = server.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    const clients = Array.from({ length: 20 }, () => connect(port, '127.0.0.1'));
    t.after(() => {
      for (const socket of [...clients, ...accepted]) socket.destroy();
      server.close();
    });
    const peers = new Peers(null);
    const found: (Peer | Promise<Peer>)[] = [];
    server.on('connection', (socket) => found.push(peers.of(socket, `${found.length}`)));
    await Promise.all(clients.map((client) => new Promise((resolve) => client.once('connect', resolve))));
    while (accepted.length < 20) await new Promise((resolve) => setImmediate(resolve));
    const uid = process.getuid?.() ?? 0;
    assert.deepEqual(
      await Promise.all(accepted.map(async (socket, at) => (await peers.of(socket, `again ${at}`)).uid)),
      accepted.map(() => uid),
    );
    assert.equal(found.length, 20);
    const none = mkdtempSync(join(tmpdir(), 'agentrm-proc-'));
    t.after(() => rmSync(none, { recursive: true }));
    assert.equal((await new Peers(null, none).of(accepted[0] as Socket, 'a')).uid, null);
    mkdirSync(join(none, 'net'));
    writeFileSync(join(none, 'net/tcp'), 'no table\n');
    assert.equal((await new Peers(null, none).of(accepted[0] as Socket, 'a')).uid, null);
  });
});

test('the user of a connection is looked up once, and for a moment not again for whoever is known', async (t) => {
  const proc = mkdtempSync(join(tmpdir(), 'agentrm-proc-'));
  t.after(() => rmSync(proc, { recursive: true }));
  mkdirSync(join(proc, 'net'));
  const ends = { remoteAddress: '127.0.0.1', remotePort: 49_436, localAddress: '127.0.0.1', localPort: 8484 };
  const socket = () => ({ ...ends }) as unknown as Socket;
  const has = (uid: number) =>
    writeFileSync(
      join(proc, 'net/tcp'),
      ` 1: 0100007F:C11C 0100007F:2124 01 0:0 00:0 0 ${uid} 0 7 1 0 20 4 30 10 -1\n`,
    );
  const peers = new Peers(null, proc);
  has(1000);
  const first = socket();
  assert.equal((await peers.of(first, 'key session')).uid, 1000);
  has(1001);
  assert.equal((await peers.of(first, 'another')).uid, 1000, 'it is the same connection');
  assert.equal((await peers.of(socket(), 'key session')).uid, 1000, 'it has the same credential and name');
  assert.equal((await peers.of(socket(), 'other-key session')).uid, 1001);
});

describe('the user of a connection, asked of the kernel', () => {
  const ends = { remoteAddress: '127.0.0.1', remotePort: 49_436, localAddress: '127.0.0.1', localPort: 8484 };
  const socket = () => ({ ...ends }) as unknown as Socket;

  /** A host whose table says 1000, and what was asked of its kernel: `peer` and `own` are its answers for the ends. */
  function host(t: TestContext, peer: number | null | Error, own: number | null) {
    const owner = (uid: number | null) => (uid === null ? null : { uid, cgroupId: 0 });
    const proc = mkdtempSync(join(tmpdir(), 'agentrm-proc-'));
    t.after(() => rmSync(proc, { recursive: true }));
    mkdirSync(join(proc, 'net'));
    const line = ' 1: 0100007F:C11C 0100007F:2124 01 0:0 00:0 0 1000 0 7 1 0 20 4 30 10 -1\n';
    writeFileSync(join(proc, 'net/tcp'), line);
    const asked: number[] = [];
    const peers = new Peers((_address, port) => {
      asked.push(port);
      if (peer instanceof Error) throw peer;
      return owner(port === ends.remotePort ? peer : own);
    }, proc);
    return { peers, asked };
  }

  test('is what it says, for each connection anew', async (t) => {
    const { peers, asked } = host(t, 1001, 0);
    const first = socket();
    assert.equal((await peers.of(first, 'a')).uid, 1001);
    assert.equal((await peers.of(first, 'a')).uid, 1001);
    assert.equal((await peers.of(socket(), 'a')).uid, 1001);
    assert.deepEqual(asked, [ends.remotePort, ends.remotePort]);
  });

  test('is nobody if it knows our own end and not the other', async (t) => {
    const { peers } = host(t, null, 0);
    assert.equal((await peers.of(socket(), 'a')).uid, null);
  });

  test('stands in the table where it does not know our own end either, or may not be asked', async (t) => {
    for (const peer of [null, Object.assign(new Error('EAFNOSUPPORT'), { code: 'EAFNOSUPPORT' })]) {
      const { peers, asked } = host(t, peer, null);
      assert.equal((await peers.of(socket(), 'a')).uid, 1000);
      const questions = asked.length;
      assert.equal((await peers.of(socket(), 'b')).uid, 1000);
      assert.equal(asked.length, questions, 'it is not asked again');
    }
  });

  test('is asked of it again after it failed once, though not found in a table meanwhile', async (t) => {
    let broken = false;
    const none = mkdtempSync(join(tmpdir(), 'agentrm-proc-'));
    t.after(() => rmSync(none, { recursive: true }));
    const peers = new Peers(() => {
      if (broken) throw new Error('EMFILE');
      return { uid: 1001, cgroupId: 77 };
    }, none);
    assert.equal((await peers.of(socket(), 'a')).uid, 1001);
    broken = true;
    assert.equal((await peers.of(socket(), 'a')).uid, null);
    broken = false;
    assert.equal((await peers.of(socket(), 'a')).uid, 1001);
  });
});

describe('one picture of both halves', () => {
  const calls: CallSession = {
    id: 'a',
    uid: 1000,
    agent: 'claude-code',
    cgroup: '/sys/fs/cgroup/agentrm/s1',
    class: 'background',
    startedAtMs: 1_000_000,
    lastActiveMs: 1_500_000,
    liveCalls: 0,
    frozenCalls: 0,
    finishedCalls: 3,
    usedBytes: 5,
  };
  const turns: ProxySession = {
    id: 'a',
    uid: 1000,
    class: 'interactive',
    lanes: 0,
    queuedTurns: 0,
    grantedTurns: 2,
    finishedTurns: 2,
    usedTokens: 99,
    holdsPlace: false,
    terminated: false,
    ageMs: 1_200_000,
    sinceTurnMs: 100_000,
    runs: [{ agent: null, ageMs: 5 }],
  };
  const nowMs = 2_000_000;

  test('joins what is of one user and one name, and nothing else', () => {
    const other = { ...turns, uid: 1001 };
    const nobody = { ...turns, uid: null };
    const records = sessionRecords([calls], [turns, other, nobody], nowMs);
    assert.deepEqual(
      records.map(({ uid, finishedCalls, usedTokens, cgroup }) => [uid, finishedCalls, usedTokens, cgroup]),
      [
        [1000, 3, 99, calls.cgroup],
        [1001, 0, 99, null],
        [null, 0, 99, null],
      ],
    );
    const [both] = records;
    assert.equal(both?.class, 'interactive', 'the newer word');
    assert.equal(both?.startedAt, new Date(800_000).toISOString(), 'the earlier beginning');
    assert.equal(both?.lastActiveAt, new Date(1_900_000).toISOString(), 'the later activity');
    assert.equal(both?.openRuns, 1);
  });

  test('has what only its calls know, with the class that was told last', () => {
    const [record] = sessionRecords([calls], [], nowMs);
    assert.deepEqual(
      [record?.class, record?.lanes, record?.usedTokens, record?.state],
      ['background', 0, 0, 'waiting'],
    );
  });

  const none = { liveCalls: 0, frozenCalls: 0, finishedCalls: 0 };
  const idle = { lanes: 0, queuedTurns: 0, grantedTurns: 0, terminated: false };
  for (const [state, ofCalls, ofTurns] of [
    ['created', undefined, { ...idle, queuedTurns: 1 }],
    ['ready', undefined, { ...idle, queuedTurns: 1, grantedTurns: 1 }],
    ['ready', { ...none, finishedCalls: 1 }, { ...idle, queuedTurns: 1 }],
    ['ready', { ...none, liveCalls: 1, frozenCalls: 1 }, { ...idle, queuedTurns: 1 }],
    ['running', undefined, { ...idle, lanes: 1, queuedTurns: 3 }],
    ['running', { ...none, liveCalls: 1 }, undefined],
    ['running', { ...none, liveCalls: 2, frozenCalls: 1 }, { ...idle, terminated: true }],
    ['running', { ...none, liveCalls: 1 }, { ...idle, queuedTurns: 1 }],
    ['waiting', { ...none, liveCalls: 1, frozenCalls: 1 }, undefined],
    ['waiting', none, undefined],
    ['waiting', undefined, { ...idle, grantedTurns: 1 }],
    ['waiting', none, { ...idle, terminated: true }],
    ['terminated', undefined, { ...idle, terminated: true }],
  ] as const)
    test(`${state}: calls ${JSON.stringify(ofCalls)}, turns ${JSON.stringify(ofTurns)}`, () => {
      assert.equal(stateOf(ofCalls, ofTurns), state);
    });
});

describe('what the daemon tells the core of calls', () => {
  function setUp() {
    const world = { calls: [] as FedCall[], sessions: [] as string[], takes: true };
    const told: CallsMessage[] = [];
    const feed = new CallsFeed({
      calls: () => world.calls,
      sessions: () => world.sessions,
      send: (message) => {
        if (world.takes) told.push(message);
        return world.takes;
      },
    });
    const tell = () => {
      feed.tell();
      return told.splice(0).flat();
    };
    return { world, feed, tell };
  }
  const call = (session: string, changes: Partial<FedCall> = {}): FedCall => ({
    session,
    live: true,
    frozen: false,
    ...changes,
  });

  test('is what has changed, with those that have none any more, and that have gone', () => {
    const { world, tell } = setUp();
    world.sessions = ['a', 'b'];
    world.calls = [call('a'), call('a', { frozen: true }), call('b', { live: false })];
    assert.deepEqual(tell(), [
      ['a', { live: 2, frozen: 1 }],
      ['b', { live: 0, frozen: 0 }],
    ]);
    assert.deepEqual(tell(), []);
    world.calls = [call('a')];
    assert.deepEqual(tell(), [['a', { live: 1, frozen: 0 }]]);
    world.calls = [];
    world.sessions = ['b'];
    assert.deepEqual(tell(), [['a', null]]);
    assert.deepEqual(tell(), []);
  });

  test('is told again when it did not go out, and all of it to a core that is new', () => {
    const { world, feed, tell } = setUp();
    world.sessions = ['a'];
    world.takes = false;
    assert.deepEqual(tell(), []);
    world.takes = true;
    assert.equal(tell().length, 1);
    feed.forget();
    assert.equal(tell().length, 1);
  });

  test('goes in lines that are not too long', () => {
    const sessions = Array.from({ length: 1_100 }, (_, n) => `${n}`);
    const sizes: number[] = [];
    const send = (message: CallsMessage) => sizes.push(message.length) > 0;
    new CallsFeed({ calls: () => [], sessions: () => sessions, send }).tell();
    assert.deepEqual(sizes, [512, 512, 76]);
  });
});

test('what is frozen is told when it is something else than before, and again to a core that knows nothing', () => {
  const told: (readonly number[])[] = [];
  let calls = [{ place: 7, frozen: false }];
  let takes = true;
  const feed = new FrozenFeed({
    calls: () => calls,
    send: (places) => {
      if (takes) told.push(places);
      return takes;
    },
  });
  const tell = () => {
    feed.tell();
    return told.splice(0);
  };
  assert.deepEqual(tell(), [], 'nothing is frozen, and nothing was');
  calls = [
    { place: 7, frozen: true },
    { place: 8, frozen: false },
    { place: 9, frozen: true },
  ];
  takes = false;
  assert.deepEqual(tell(), []);
  takes = true;
  assert.deepEqual(tell(), [[7, 9]], 'what could not be sent');
  assert.deepEqual(tell(), []);
  feed.forget();
  assert.deepEqual(tell(), [[7, 9]]);
  calls = [];
  assert.deepEqual(tell(), [[]]);
});

test('the class of a session is news once', () => {
  const classes = new SessionClasses();
  assert.equal(classes.of(1, 'a'), undefined);
  const set = (sessionClass: 'background' | 'interactive') => classes.set('1:a', sessionClass);
  assert.deepEqual([set('background'), set('background'), set('interactive')], [true, false, true]);
  assert.deepEqual([classes.of(1, 'a'), classes.of(2, 'a')], ['interactive', undefined]);
});

describe('what the core says', () => {
  test('is dropped unless it is what it should be', () => {
    assert.deepEqual(parseClass('{"session":"1:a","class":"background"}'), {
      session: '1:a',
      class: 'background',
    });
    for (const bad of [
      '',
      '{',
      '{}',
      '{"session":"1:a","class":"root"}',
      '{"session":7,"class":"background"}',
    ])
      assert.equal(parseClass(bad), undefined, bad);
    assert.equal(parseClass(JSON.stringify({ session: 'x'.repeat(200), class: 'background' })), undefined);
    const event = { kind: 'turn-held', session: '1:a', turn: 't1', poolShort: true };
    assert.deepEqual(parseEvent(JSON.stringify(event)), event);
    for (const bad of [{ kind: 'kill' }, { record: { outcome: 'ok' } }, { turn: 'x'.repeat(1_000) }])
      assert.equal(parseEvent(JSON.stringify({ ...event, ...bad })), undefined, JSON.stringify(bad));
    for (const bad of ['', 'null', '{"queued":1}', `"${'x'.repeat(2 ** 21)}"`])
      assert.equal(parseMonitor(bad), null);
  });

  function busy(t: TestContext) {
    const lab = new SchedulerLab({ limits: { configured: [{ perMin: { requests: 100_000 } }] } });
    t.after(() => lab.scheduler.close());
    const serve = (session: string, credential: string) =>
      leaseOf(lab.submit({ session, credential })).end({ kind: 'ok', endsRun: false });
    return { lab, serve };
  }

  test('is understood as it was meant', (t) => {
    const { lab, serve } = busy(t);
    serve('1000:a', 'c1');
    lab.submit({ session: '1000:a', credential: 'c1', agent: 'x' });
    const said = proxyMonitor(lab.scheduler, undefined);
    const text = JSON.stringify(said);
    assert.deepEqual(parseMonitor(text), JSON.parse(text));
    assert.equal(parseMonitor(text.padEnd(2 ** 20 + 1)), null, 'more than it ever says');
    assert.deepEqual([said.running, said.sessions[0]?.lanes, said.sessions[0]?.runs.length], [1, 1, 2]);
  });

  test('is of the user who asks: sessions, and the upstreams that they use', (t) => {
    const { lab, serve } = busy(t);
    serve('1000:a', 'c1');
    serve('1001:a', 'c2');
    serve('-:a', 'c3');
    const of = (uid: number | undefined) => {
      const { sessions, upstreams } = proxyMonitor(lab.scheduler, uid);
      return [sessions.map((session) => session.uid), upstreams.map(({ credential }) => credential)];
    };
    assert.deepEqual(of(1000), [[1000], ['c1']]);
    assert.deepEqual(of(1001), [[1001], ['c2']]);
    assert.deepEqual(of(0), [[], []]);
    assert.deepEqual(of(undefined), [
      [1000, 1001, null],
      ['c1', 'c2', 'c3'],
    ]);
  });

  test('has an end, however many sessions somebody makes up', (t) => {
    const { lab, serve } = busy(t);
    for (let n = 0; n < 300; n += 1) serve(`1000:${n}`, 'c1');
    serve('1001:a', 'c1');
    const { sessions, omitted } = proxyMonitor(lab.scheduler, 1000);
    assert.deepEqual([sessions.length, omitted, sessions.at(-1)?.id], [256, 44, '299']);
    assert.equal(proxyMonitor(lab.scheduler, 1001).sessions.length, 1, 'another user is seen all the same');
  });
});

test('the pool is short when somebody wants what it does not have, or the next one would', () => {
  const enough = { roomBytes: 1, waitingCalls: 0, unservedCalls: 0 };
  assert.equal(isPoolShort(enough), false);
  for (const change of [{ roomBytes: 0 }, { waitingCalls: 1 }, { unservedCalls: 1 }])
    assert.equal(isPoolShort({ ...enough, ...change }), true, JSON.stringify(change));
});

test('calls that are frozen for want of memory are unserved, whoever it is kept for', () => {
  const decided = (action: 'freeze' | 'wait' | 'lend') => [{ atMs: 0, action, reason: '' }];
  const unserved = [
    { frozenFor: 'line', decisions: decided('wait') },
    { frozenFor: 'pool', decisions: decided('freeze') },
  ] as const;
  const others = [
    { frozenFor: 'line', decisions: decided('freeze') },
    { frozenFor: undefined, decisions: decided('wait') },
    { frozenFor: undefined, decisions: decided('lend') },
  ] as const;
  for (const call of unserved) assert.equal(unservedCalls([call]), 1, call.frozenFor);
  assert.equal(unservedCalls(others), 0);
});
