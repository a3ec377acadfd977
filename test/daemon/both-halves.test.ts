// SPDX-License-Identifier: Apache-2.0
// The daemon and its core with real turns: one picture of sessions, whose it is, and the end of runs.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Monitor, SessionRecord } from '../../daemon/control/types.ts';
import { runCommand, TestDaemon, top, until } from '../lib/daemon.ts';
import { freePort } from '../lib/port.ts';
import { MESSAGES } from '../proxy/answers.ts';
import { type Ask, ask, nextChunk, open, readAll, turn } from '../proxy/lab.ts';
import { type Script, STREAM_HEADERS, StandIn } from '../proxy/upstream.ts';
import { metric } from './peers.ts';

const isRoot = process.getuid?.() === 0;
const own = process.getuid?.() ?? 0;
const agentrm = `${top}dist/agentrm`;

/** A turn of a session. */
function of(session: string, headers: Record<string, string> = {}, stream = true): Ask {
  const asked = turn(MESSAGES, stream, session);
  return {
    ...asked,
    headers: {
      ...(asked.headers as Record<string, string>),
      'x-claude-code-session-id': session,
      ...headers,
    },
  };
}

async function started(t: TestContext, script: Script, settings = '', config = '') {
  const upstream = await StandIn.start(t, script);
  const port = await freePort();
  const daemon = new TestDaemon({
    proxy: true,
    config: `${config}proxy: { listen: "127.0.0.1:${port}", upstreams: { anthropic: { url: "${upstream.url}" } }${settings} }\n`,
  });
  t.after(() => daemon.close());
  await daemon.start();
  await until(() => daemon.log.includes('"msg":"proxy listens"'), 'the proxy listens');
  return { daemon, upstream, url: `http://127.0.0.1:${port}` };
}

async function sessionsOf(daemon: TestDaemon): Promise<Map<string, SessionRecord>> {
  const { sessions } = await daemon.get<{ sessions: SessionRecord[] }>('/v1/sessions');
  return new Map(sessions.map((session) => [session.id, session]));
}

/** A stream whose first event comes at once, and the rest when `gate` opens. */
function gated(gate: Promise<void>, events = MESSAGES.events) {
  return { headers: STREAM_HEADERS, steps: [String(events[0]), { after: gate }, ...events.slice(1)] };
}

test('sessions have their turns: state, class, lanes, queue and tokens', async (t) => {
  const gate = Promise.withResolvers<void>();
  const { daemon, url } = await started(t, () => gated(gate.promise), ', lanes: { fixed: 1 }');
  const first = await open(url, of('one', { 'x-agentrm-class': 'background' }));
  await nextChunk(first);
  const second = open(url, of('two', { 'x-claude-code-agent-id': 'a1' }));
  await until(async () => (await sessionsOf(daemon)).get('two')?.queuedTurns === 1, 'the second waits');
  const before = await sessionsOf(daemon);
  const shown = (session: SessionRecord | undefined) =>
    session && [session.uid, session.state, session.class, session.lanes, session.queuedTurns];
  assert.deepEqual(shown(before.get('one')), [own, 'running', 'background', 1, 0]);
  assert.deepEqual(shown(before.get('two')), [own, 'created', 'subagent', 0, 1]);
  gate.resolve();
  await readAll(first);
  await readAll(await second);
  await until(async () => (await sessionsOf(daemon)).get('two')?.finishedTurns === 1, 'the second is over');
  const after = await sessionsOf(daemon);
  const { inputTokens, outputTokens } = MESSAGES.usage;
  for (const id of ['one', 'two']) {
    const session = after.get(id);
    assert.deepEqual([session?.state, session?.lanes], ['waiting', 0]);
    assert.equal(session?.usedTokens, inputTokens + outputTokens);
    assert.equal(session?.openRuns, 1, 'its answer asks for a tool');
  }
});

test('a user sees the sessions of their own, root all', {
  skip: isRoot ? false : 'needs root',
}, async (t) => {
  const { daemon, url } = await started(t, () => ({ steps: [MESSAGES.whole] }));
  assert.equal((await ask(url, of('of-root', {}, false))).status, 200);
  const curl = ['-s', '-o', '/dev/null', '-w', '%{http_code}', `${url}/v1/messages`];
  // Whoever has another's credential and knows their session's name may do as they do; this one has their own.
  const theirKey = { 'x-api-key': 'sk-theirs' };
  const headers = Object.entries(of('of-another', theirKey, false).headers ?? {}).flatMap(([name, value]) => [
    '-H',
    `${name}: ${value}`,
  ]);
  const body = MESSAGES.ask(false);
  const asked = await runCommand('curl', [...curl, ...headers, '--data-binary', body], { uid: 65534 });
  assert.equal(asked.stdout, '200', asked.stderr);
  // Whoever says that they are another's session is not.
  const claimed = Object.entries(of('of-root', theirKey, false).headers ?? {}).flatMap(([name, value]) => [
    '-H',
    `${name}: ${value}`,
  ]);
  await runCommand('curl', [...curl, ...claimed, '--data-binary', body], { uid: 65534 });
  const seenBy = async (uid: number) => {
    const args = ['-s', '--unix-socket', daemon.socket, 'http://localhost/v1/monitor'];
    const { sessions, proxy } = JSON.parse((await runCommand('curl', args, { uid })).stdout) as Monitor;
    return {
      sessions: sessions.map(({ uid: owner, id }) => `${owner}:${id}`).sort(),
      upstreams: proxy?.upstreams.length,
    };
  };
  const theirs = ['65534:of-another', '65534:of-root'];
  assert.deepEqual(await seenBy(65534), { sessions: theirs, upstreams: 1 });
  assert.deepEqual(await seenBy(0), { sessions: ['0:of-root', ...theirs], upstreams: 2 });
  assert.deepEqual(await seenBy(65533), { sessions: [], upstreams: 0 });
});

test('agentrm sessions and top show both halves, and exit with 0', async (t) => {
  const { daemon, url } = await started(t, () => ({ steps: [MESSAGES.whole] }));
  assert.equal((await ask(url, of('shown', {}, false))).status, 200);
  const run = (...args: string[]) => runCommand(agentrm, [...args, '--socket', daemon.socket]);
  const sessions = await run('sessions');
  assert.equal(sessions.code, 0, sessions.stderr);
  assert.match(sessions.stdout, /^shown .* waiting +interactive /m);
  const json = await run('top', '--json');
  assert.equal(json.code, 0, json.stderr);
  const { proxy, pool, host } = JSON.parse(json.stdout) as Monitor;
  assert.equal(proxy?.upstreams[0]?.modelClass, 'claude-sonnet-4');
  assert.ok(pool.budgetBytes > 0 && host.totalBytes > 0);
  const once = await run('top', '--once');
  assert.equal(once.code, 0, once.stderr);
  assert.match(once.stdout, /^turns +0 running, 0 queued/m);
});

test('a run with which nobody goes on is ended, told of and logged; a dry run only tells', async (t) => {
  for (const dryRun of [false, true]) {
    const settings = `, reaper: { abandoned: 1s, dryRun: ${dryRun} }`;
    const { daemon, url } = await started(t, () => ({ steps: [MESSAGES.whole] }), settings);
    assert.equal((await ask(url, of('left', {}, false))).status, 200);
    const event = await daemon.event(({ kind }) => kind === 'run-abandoned');
    assert.deepEqual([event.session, event.runs, event.dryRun], ['left', 1, dryRun]);
    await until(() => daemon.log.includes('"msg":"run abandoned"'), 'it is logged');
    assert.equal((await sessionsOf(daemon)).get('left')?.state, dryRun ? 'waiting' : 'terminated');
    assert.equal(await metric(daemon, 'agentrm_scheduler_abandoned_total'), dryRun ? 0 : 1);
    assert.equal(await metric(daemon, 'agentrm_scheduler_would_abandon_total'), dryRun ? 1 : 0);
  }
});

test('of so many agents as may run, the next goes when the run of one has ended', async (t) => {
  const answered = MESSAGES.whole.replace('"tool_use"', '"text"').replace('tool_use', 'end_turn');
  const { daemon, url, upstream } = await started(
    t,
    ({ body }) => ({ steps: [body.includes('the last') ? answered : MESSAGES.whole] }),
    ', agents: 1',
  );
  assert.equal((await ask(url, of('first', {}, false))).status, 200);
  const waiting = ask(url, of('second', {}, false));
  await until(async () => (await sessionsOf(daemon)).get('second')?.state === 'created', 'the second waits');
  // It runs on, with its subagents: they have its place.
  assert.equal((await ask(url, of('first', { 'x-claude-code-agent-id': 'a' }, false))).status, 200);
  assert.equal(upstream.received.length, 2);
  const last = (headers: Record<string, string> = {}) => ({
    ...of('first', headers, false),
    body: MESSAGES.ask(false, 'the last'),
  });
  assert.equal((await ask(url, last({ 'x-claude-code-agent-id': 'a' }))).status, 200);
  assert.equal((await ask(url, last())).status, 200);
  assert.equal((await waiting).status, 200);
});

test('by deadline, who must go soonest does, whatever its class', async (t) => {
  const gate = Promise.withResolvers<void>();
  const { daemon, url, upstream } = await started(
    t,
    (_request, index) => (index === 0 ? gated(gate.promise) : { steps: [MESSAGES.whole] }),
    ', lanes: { fixed: 1 }, queue: { policy: deadline }',
  );
  const first = await open(url, of('first'));
  const user = ask(url, of('user', {}, false));
  await until(async () => (await sessionsOf(daemon)).get('user')?.queuedTurns === 1, 'the user waits');
  const urgent = { 'x-agentrm-class': 'background', 'x-agentrm-deadline': '1' };
  const background = ask(url, of('urgent', urgent, false));
  await until(async () => (await sessionsOf(daemon)).get('urgent')?.queuedTurns === 1, 'the other too');
  gate.resolve();
  await readAll(first);
  await Promise.all([user, background]);
  assert.deepEqual(
    upstream.received.map(({ headers }) => headers['x-claude-code-session-id']),
    ['first', 'urgent', 'user'],
  );
});

test('a core that dies knows open runs and places of agents again', async (t) => {
  const { daemon, url } = await started(t, () => ({ steps: [MESSAGES.whole] }), ', agents: 1');
  assert.equal((await ask(url, of('first', {}, false))).status, 200);
  const pid = () => Number(/"corePid":(\d+)[^\n]*"proxy listens"/.exec(daemon.log)?.[1]);
  // Handed out once a second: until it was, a crash may lose it.
  const stored = async () => {
    const { stdout } = await runCommand('cat', [`${daemon.dir}/state/core-state.json`]);
    return stdout.includes(`"session":"${own}:first"`) && stdout.includes('"runs":[{');
  };
  await until(stored, 'its state is written');
  process.kill(pid(), 'SIGKILL');
  await until(() => daemon.log.split('"msg":"proxy listens"').length > 2, 'it listens again');
  const { proxy } = await daemon.get<Monitor>('/v1/monitor');
  assert.deepEqual(proxy?.agents, { limit: 1, running: 1, waiting: 0 });
  assert.equal((await sessionsOf(daemon)).get('first')?.openRuns, 1);
});
