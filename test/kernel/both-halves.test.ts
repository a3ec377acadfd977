// SPDX-License-Identifier: Apache-2.0
// What no half can do alone: tool calls that keep their run alive, turns that give calls their weight, and memory
// that decides when turns go.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Monitor, SessionRecord } from '../../daemon/control/types.ts';
import { agentrmBash, TestDaemon, until, useMemory } from '../lib/daemon.ts';
import { freePort } from '../lib/port.ts';
import { MESSAGES } from '../proxy/answers.ts';
import { type Ask, ask, nextChunk, open, readAll, turn } from '../proxy/lab.ts';
import { type Script, STREAM_HEADERS, StandIn } from '../proxy/upstream.ts';

/** For what hangs if one half does not hear of the other. */
const timeout = 180_000;

/** Says that it is there, waits for a line, and grows by so many MiB in small steps. */
const grow = (mib: number) => `exec python3 -c "
import sys
print('here', flush=True)
sys.stdin.readline()
held = [bytearray(b'x') * 2 ** 18 for _ in range(${mib} * 4)]
print('grown', flush=True)
sys.stdin.readline()
"`;

/** A turn of a session, which asks for a tool. */
function of(session: string, headers: Record<string, string> = {}): Ask {
  const asked = turn(MESSAGES, true, session);
  const named = { 'x-claude-code-session-id': session, ...headers };
  return { ...asked, headers: { ...(asked.headers as Record<string, string>), ...named } };
}

const background = { 'x-agentrm-class': 'background' };

describe('both halves', () => {
  let daemon: TestDaemon;
  let upstream: StandIn;
  let port: number;
  let url: string;
  let script: Script;
  const children: ChildProcess[] = [];
  const seen = new Set<unknown>();

  before(async () => {
    upstream = new StandIn((...asked) => script(...asked));
    await upstream.listen();
    port = await freePort();
    url = `http://127.0.0.1:${port}`;
    // All of the pool is one call's memory.high: over it nothing is left to lend, and a freeze lasts.
    await startDaemon('abandoned: 3s');
  });
  beforeEach(() => {
    script = () => ({ headers: STREAM_HEADERS, steps: [MESSAGES.events.join('')] });
  });
  // What is left of a test's calls would have its part of the pool in the next.
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    await until(async () => (await daemon.liveCalls()).length === 0, 'no call is left');
  });
  after(async () => {
    await daemon.close();
    await upstream.close();
  });

  async function startDaemon(reaper: string): Promise<void> {
    const config = `
pool: { budget: 64M }
ceiling: memory.max=1G
defaults: memory.high=64M
enforcement: { freezeDeadline: 5m }
proxy: { listen: "127.0.0.1:${port}", upstreams: { anthropic: { url: "${upstream.url}" } }, reaper: { ${reaper} } }
`;
    daemon = await new TestDaemon({ proxy: true, config }).start();
    await until(() => daemon.log.includes('"msg":"proxy listens"'), 'the proxy listens');
  }

  /** A call of a session that runs until it is told to grow; its cgroup's path. */
  async function startCall(session: string, env: Record<string, string> = {}, command = grow(80)) {
    const child = spawn(agentrmBash, ['-c', command], {
      env: daemon.env({ AGENTRM_SESSION: session, ...env }),
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    children.push(child);
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, 'here');
    const { call } = await daemon.event(
      (event) => event.kind === 'call-start' && event.session === session && !seen.has(event.call),
    );
    seen.add(call);
    const record = (await sessionsOf()).get(session);
    return { child, lines, call, path: `${record?.cgroup}/${call}`, sessionPath: String(record?.cgroup) };
  }

  async function sessionsOf(): Promise<Map<string, SessionRecord>> {
    const { sessions } = await daemon.get<{ sessions: SessionRecord[] }>('/v1/sessions');
    return new Map(sessions.map((session) => [session.id, session]));
  }

  const goes = async (asked: Ask) => assert.equal((await ask(url, asked)).status, 200);
  const abandoned = (session: string) =>
    daemon.event((event) => event.kind === 'run-abandoned' && event.session === session);
  const weight = (path: string) => readFileSync(`${path}/cpu.weight`, 'utf8').trim();
  const idle = (path: string) => readFileSync(`${path}/cpu.idle`, 'utf8').trim();

  test('a run with a frozen or a working tool call is not abandoned; without one it is', {
    timeout,
  }, async () => {
    // Their calls first: on a slow machine a call may begin later than a run is waited for.
    const frozen = await startCall('frozen');
    const working = await startCall('working');
    await goes(of('frozen'));
    await goes(of('working'));
    frozen.child.stdin?.write('grow\n');
    await daemon.event((event) => event.kind === 'freeze' && event.session === 'frozen');
    assert.match(readFileSync(`${frozen.path}/cgroup.freeze`, 'utf8'), /^1/);
    // The youngest of the three, and the only one of which nothing is left.
    await goes(of('left'));
    const evidence = await abandoned('left');
    assert.equal(evidence.noCallForMs, null, 'it never had a call');
    const sessions = await sessionsOf();
    const shown = (id: string) => {
      const session = sessions.get(id);
      return session && [session.state, session.openRuns, session.liveCalls, session.frozenCalls];
    };
    assert.deepEqual(shown('frozen'), ['waiting', 1, 1, 1]);
    assert.deepEqual(shown('working'), ['running', 1, 1, 0]);
    // Their ends are what the time counts from.
    for (const [session, { child }] of Object.entries({ frozen, working })) {
      child.kill('SIGKILL');
      const { noCallForMs } = await abandoned(session);
      assert.ok(Number(noCallForMs) >= 3_000, `${noCallForMs}`);
    }
  });

  test("a session's class is the weight of its calls, also of those that run", { timeout }, async () => {
    await goes(of('worker', background));
    const call = await startCall('worker');
    const declared = await startCall('worker', { AGENTRM_INTENT: 'cpu.weight=42' });
    assert.deepEqual([idle(call.path), weight(declared.path)], ['1', '42']);
    // The user takes over.
    await goes(of('worker'));
    const changed = await daemon.event(
      (event) => event.kind === 'session-class' && event.session === 'worker',
    );
    assert.equal(changed.class, 'interactive');
    assert.deepEqual([idle(call.path), weight(call.path), weight(declared.path)], ['0', '100', '42']);
    assert.equal(weight(call.sessionPath), '100', 'and that of the session against others');
    if (existsSync(`${call.path}/io.weight`)) {
      assert.match(readFileSync(`${call.path}/io.weight`, 'utf8'), /^default 100$/m);
    }
    const next = await startCall('worker');
    assert.equal(weight(next.path), '100');
    // A session that nobody knows from turns is what it was before.
    assert.equal(weight((await startCall('unknown')).path), '100');
  });

  test('a pool that is short slows background turns, and nobody else', { timeout }, async () => {
    const call = await startCall('hungry');
    call.child.stdin?.write('grow\n');
    await daemon.event((event) => event.kind === 'freeze' && event.session === 'hungry');
    const short = async () => (await daemon.get<Monitor>('/v1/monitor')).proxy?.pressure.poolShort === true;
    await until(short, 'the core knows that the pool is short');
    const gate = Promise.withResolvers<void>();
    const [first = '', ...rest] = MESSAGES.events;
    script = ({ headers }) => ({
      headers: STREAM_HEADERS,
      steps: headers['x-agentrm-class'] ? [first, { after: gate.promise }, ...rest] : [first, ...rest],
    });
    const goesOn = await open(url, of('b1', background));
    await nextChunk(goesOn);
    const held = open(url, of('b2', background));
    const evidence = await daemon.event((event) => event.kind === 'turn-held');
    assert.deepEqual([evidence.session, evidence.class, evidence.poolShort], ['b2', 'background', true]);
    assert.equal((await sessionsOf()).get('b2')?.queuedTurns, 1);
    await goes(of('user'));
    await goes(of('user', { 'x-claude-code-agent-id': 'a' }));
    assert.equal((await sessionsOf()).get('b2')?.queuedTurns, 1);
    // Its memory is free again: 31 lanes are too.
    call.child.kill('SIGKILL');
    const released = await daemon.event((event) => event.kind === 'turn-released');
    assert.deepEqual([released.session, released.turn], ['b2', evidence.turn]);
    gate.resolve();
    for (const response of [goesOn, await held]) assert.ok((await readAll(response)).complete);
  });

  test('a turn whose client is inside a frozen call does not count as hung', { timeout }, async () => {
    await daemon.close();
    // More than it takes to grow into the freeze.
    await startDaemon('firstByte: 15s, betweenBytes: 15s');
    const [first = ''] = MESSAGES.events;
    script = () => ({ headers: STREAM_HEADERS, steps: [first, 'stall'] });
    const outside = async () => {
      const response = await open(url, of('outside'));
      const { body } = await readAll(response);
      assert.match(body.toString(), /^event: error$/m, 'it was ended');
    };
    const asked = of('inside');
    const agent = `exec python3 -c "
import http.client, json, os, sys
connection = http.client.HTTPConnection('127.0.0.1', ${port})
connection.request('POST', '${asked.path}', os.environ['BODY'], json.loads(os.environ['HEADERS']))
connection.getresponse().read(1)
print('here', flush=True)
sys.stdin.readline()
os.system('${useMemory(80)}')
"`;
    const headers = JSON.stringify(asked.headers);
    const inside = await startCall('inside', { BODY: String(asked.body), HEADERS: headers }, agent);
    inside.child.stdin?.write('grow\n');
    await daemon.event((event) => event.kind === 'freeze' && event.session === 'inside');
    // Begun later, ended all the same.
    await outside();
    const turnInside = upstream.received.find(
      ({ headers: sent }) => sent['x-claude-code-session-id'] === 'inside',
    );
    assert.equal(await Promise.race([turnInside?.over, 'still asked']), 'still asked');
    // Whoever ends the call ends the turn.
    inside.child.kill('SIGKILL');
    assert.equal(await turnInside?.over, false);
  });
});
