// SPDX-License-Identifier: Apache-2.0
// The core as a process: what it runs as, what survives it, and that its parent does not feel it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../../daemon/config/load.ts';
import type { ProxyConfig } from '../../daemon/config/proxy.ts';
import { idsOfUser } from '../../daemon/config/users.ts';
import type { Monitor } from '../../daemon/control/types.ts';
import { CoreProcess } from '../../daemon/core/process.ts';
import { StateFile } from '../../daemon/core/state-file.ts';
import { createLogger } from '../../daemon/log.ts';
import { top } from '../lib/daemon.ts';
import { freePort } from '../lib/port.ts';
import { MESSAGES } from './answers.ts';
import { ask, nextChunk, open, readAll, turn } from './lab.ts';
import { startProxyOnly } from './proxy-only.ts';
import { JSON_HEADERS, STREAM_HEADERS, StandIn } from './upstream.ts';

const isRoot = process.getuid?.() === 0;
const ids = isRoot ? (idsOfUser('nobody') ?? null) : null;
const quiet = createLogger({ level: 'fatal' });

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-core-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

interface Hosted {
  readonly core: CoreProcess;
  readonly state: StateFile;
  readonly url: string;
  /** Resolves the next time that it listens. */
  listening(): Promise<void>;
  /** What became of the next settings that were asked for. */
  configured(): Promise<string | null>;
}

interface HostOptions {
  /** Lines of its section of the configuration. */
  readonly settings?: string;
  /** Of what the file says, that it is started with. */
  readonly first?: (config: ProxyConfig) => ProxyConfig;
  /** Called as soon as it is started. */
  readonly starting?: (core: CoreProcess, config: ProxyConfig) => void;
}

/** A core under this process, as agentrmd has it. */
async function host(
  t: TestContext,
  dir: string,
  upstreamUrl: string,
  { settings = '', first = (config) => config, starting = () => {} }: HostOptions = {},
): Promise<Hosted> {
  const port = await freePort();
  const file = join(dir, 'agentrmd.yaml');
  writeFileSync(
    file,
    `log: { level: fatal }\nproxy:\n  listen: 127.0.0.1:${port}\n  upstreams: { anthropic: { url: "${upstreamUrl}" } }\n${settings}`,
  );
  const loaded = loadConfig({ file, env: {} });
  assert.ok(loaded.ok, JSON.stringify(loaded));
  const state = new StateFile(join(dir, 'state'), quiet);
  let heard: () => void = () => {};
  const listening = () =>
    new Promise<void>((resolve) => {
      heard = resolve;
    });
  const outcomes: (string | null)[] = [];
  const waiters: ((problem: string | null) => void)[] = [];
  const configured = () =>
    new Promise<string | null>((resolve) => {
      const problem = outcomes.shift();
      if (problem === undefined) waiters.push(resolve);
      else resolve(problem);
    });
  const core = new CoreProcess({
    config: first(loaded.config.proxy),
    logLevel: 'fatal',
    ids,
    state,
    log: quiet,
    onClass: () => {},
    onEvent: () => {},
    onListening: () => heard(),
    onConfigured: (problem) => {
      const waiter = waiters.shift();
      if (waiter === undefined) outcomes.push(problem);
      else waiter(problem);
    },
    onDown: () => {},
  });
  t.after(async () => {
    await core.close();
    await state.close();
  });
  const ready = listening();
  core.start();
  starting(core, loaded.config.proxy);
  await ready;
  return { core, state, url: `http://127.0.0.1:${port}`, listening, configured };
}

/** kill -9, and wait for the next one. */
async function crash({ core, listening }: Hosted): Promise<void> {
  const again = listening();
  process.kill(core.pid ?? 0, 'SIGKILL');
  await again;
}

/** Until the core has handed out a state that satisfies the test; it does so every second while things change. */
async function stateWith({ state }: Hosted, test: (text: string) => boolean): Promise<void> {
  const signal = AbortSignal.timeout(60_000);
  while (!test(state.newest ?? '')) {
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const metric = async ({ core }: Hosted, name: string): Promise<number> =>
  Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(await core.metrics())?.[1] ?? Number.NaN);

test('it runs as another user, without groups', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const hosted = await host(t, folder(t), upstream.url);
  const status = readFileSync(`/proc/${hosted.core.pid}/status`, 'utf8');
  const { uid, gid } = ids ?? assert.fail();
  assert.match(status, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, 'm'));
  assert.match(status, new RegExp(`^Gid:\\t${gid}\\t${gid}\\t${gid}\\t${gid}$`, 'm'));
  assert.match(status, /^Groups:\t *$/m);
  assert.match(status, /^CapEff:\t0+$/m);
  assert.equal((await ask(hosted.url, turn(MESSAGES, false))).status, 200);
});

test('it dies, and the next one has its budgets', async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const { inputTokens, outputTokens } = MESSAGES.usage;
  const hosted = await host(t, folder(t), upstream.url, {
    settings: `  sessionTokens: ${inputTokens + outputTokens}\n`,
  });
  const asked = turn(MESSAGES, false);
  const of = (session: string) => ({
    ...asked,
    headers: { ...asked.headers, 'x-claude-code-session-id': session },
  });
  assert.equal((await ask(hosted.url, of('one'))).status, 200);
  await stateWith(hosted, (text) => text.includes(`"usedTokens":${inputTokens + outputTokens}`));
  await crash(hosted);
  assert.equal(hosted.core.restarts, 1);
  assert.equal((await ask(hosted.url, of('one'))).status, 429, 'its tokens are used up');
  assert.equal((await ask(hosted.url, of('two'))).status, 200);
});

test('it dies, and who waited keeps their place', async (t) => {
  const upstream = await StandIn.start(t, (_request, index) =>
    index === 0 ? 'silent' : { steps: [MESSAGES.whole] },
  );
  const hosted = await host(t, folder(t), upstream.url, { settings: '  lanes: { fixed: 1 }\n' });
  const running = ask(hosted.url, turn(MESSAGES, false, 'one'));
  running.catch(() => {});
  await upstream.count(1);
  const waiting = ask(hosted.url, turn(MESSAGES, false, 'two'));
  waiting.catch(() => {});
  await stateWith(
    hosted,
    (text) => (JSON.parse(text || '{"places":[]}') as { places: unknown[] }).places.length > 0,
  );
  await crash(hosted);
  await assert.rejects(running);
  await assert.rejects(waiting);
  assert.equal((await ask(hosted.url, turn(MESSAGES, false, 'two'))).status, 200);
  assert.equal(await metric(hosted, 'agentrm_scheduler_places_kept_total'), 1);
});

test('what it keeps is in a file of its own, that only its parent can read, and without credentials', async (t) => {
  const dir = folder(t);
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const hosted = await host(t, dir, upstream.url);
  const asked = turn(MESSAGES, false);
  await ask(hosted.url, {
    ...asked,
    headers: { ...asked.headers, 'x-api-key': 'sk-very-secret', authorization: 'Bearer also' },
  });
  await stateWith(hosted, (text) => text.includes('"upstreams":[{'));
  await hosted.core.close();
  await hosted.state.close();
  const path = join(dir, 'state/core-state.json');
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(statSync(join(dir, 'state/core-key')).mode & 0o777, 0o600);
  const text = readFileSync(path, 'utf8');
  for (const secret of ['sk-very-secret', 'Bearer', 'also', 'hello'])
    assert.ok(!text.includes(secret), secret);
});

test('a port that is taken: told why, and tried again', async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const first = await host(t, folder(t), upstream.url);
  const { promise, resolve } = Promise.withResolvers<string>();
  const state = new StateFile(join(folder(t), 'state'), quiet);
  const config = loadConfig({ env: { AGENTRM_PROXY_LISTEN: new URL(first.url).host }, root: folder(t) });
  assert.ok(config.ok);
  const silent = { onClass: () => {}, onEvent: () => {}, onListening: () => {}, onConfigured: () => {} };
  const options = {
    config: config.config.proxy,
    logLevel: 'fatal' as const,
    ids,
    state,
    log: quiet,
    ...silent,
  };
  const second = new CoreProcess({ ...options, onDown: resolve });
  t.after(() => second.close());
  second.start();
  assert.match(await promise, /EADDRINUSE/);
});

/** User and system time of a process, in clock ticks. */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

test('bodies of 32 MB and a crash cost the parent next to nothing', async (t) => {
  const bytes = 31 * 2 ** 20;
  const rounds = 12;
  const client = spawn(
    process.execPath,
    [join(import.meta.dirname, 'big-client.ts'), `${rounds}`, `${bytes}`],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  t.after(() => client.kill('SIGKILL'));
  const lines = createInterface({ input: client.stdout })[Symbol.asyncIterator]();
  const upstreamUrl = (await lines.next()).value as string;
  const hosted = await host(t, folder(t), upstreamUrl);
  const corePid = hosted.core.pid ?? 0;
  const before = { parent: cpuTicks(process.pid), core: cpuTicks(corePid) };
  client.stdin.end(`${hosted.url}\n`);
  assert.equal((await lines.next()).value, 'done');
  const core = cpuTicks(corePid) - before.core;
  await crash(hosted);
  const parent = cpuTicks(process.pid) - before.parent;
  // What the bodies and a crash take of the daemon's loop is a small part of what one body takes of the core's.
  assert.ok(core >= rounds, `the core used ${core} ticks: nothing was measured`);
  assert.ok(parent <= core / 4, `the parent used ${parent} ticks, the core ${core}`);
});

test('another configuration is in force at once, outlives a crash, and a bad one is not taken', async (t) => {
  const gate = Promise.withResolvers<void>();
  const [first, ...rest] = MESSAGES.events;
  const old = await StandIn.start(t, () => ({
    headers: STREAM_HEADERS,
    steps: [String(first), { after: gate.promise }, ...rest],
  }));
  const other = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const hosted = await host(t, folder(t), old.url);
  const { core, url } = hosted;
  const stream = await open(url, turn(MESSAGES, true));
  const begun = await nextChunk(stream);

  const { upstreams } = core.config;
  const config = {
    ...core.config,
    bodyBytes: 2_000,
    upstreams: { ...upstreams, anthropic: { ...upstreams.anthropic, url: other.url } },
  };
  assert.ok(core.configure({ config, logLevel: 'fatal' }));
  assert.equal(await hosted.configured(), null);
  assert.equal((await ask(url, turn(MESSAGES, false))).status, 200);
  assert.equal(other.received.length, 1);
  assert.equal((await ask(url, turn(MESSAGES, false, 'x'.repeat(2_000)))).status, 413);
  gate.resolve();
  const { body, complete } = await readAll(stream);
  assert.ok(complete, 'what was under way ends where it is');
  assert.equal(begun.toString() + body.toString(), MESSAGES.events.join(''));

  const bad = { ...upstreams.anthropic, url: old.url, ca: '/nonexistent/ca.pem' };
  core.configure({
    config: { ...config, bodyBytes: 2 ** 20, upstreams: { ...upstreams, anthropic: bad } },
    logLevel: 'fatal',
  });
  assert.match((await hosted.configured()) ?? '', /ENOENT.*ca\.pem/);
  for (const crashed of [false, true]) {
    if (crashed) await crash(hosted);
    assert.equal((await ask(url, turn(MESSAGES, false))).status, 200);
    assert.equal((await ask(url, turn(MESSAGES, false, 'x'.repeat(2_000)))).status, 413);
  }
  assert.deepEqual([old.received.length, other.received.length], [1, 3]);
});

/** With which no core can start, nor go on. */
function unusable(config: ProxyConfig): ProxyConfig {
  const { upstreams } = config;
  const anthropic = { ...upstreams.anthropic, ca: '/nonexistent/ca.pem' };
  return { ...config, upstreams: { ...upstreams, anthropic } };
}

const large = turn(MESSAGES, false, 'x'.repeat(2_000));

test('a configuration that comes while it starts is in force when it listens, the newest of several', async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const hosted = await host(t, folder(t), upstream.url, {
    starting: (core, config) => {
      for (const bodyBytes of [500, 2_000]) {
        assert.equal(core.configure({ config: { ...config, bodyBytes }, logLevel: 'fatal' }), false);
      }
    },
  });
  assert.equal(await hosted.configured(), null);
  for (const crashed of [false, true]) {
    if (crashed) await crash(hosted);
    assert.equal((await ask(hosted.url, large)).status, 413);
    assert.equal((await ask(hosted.url, turn(MESSAGES, false, 'x'.repeat(1_000)))).status, 200);
  }
});

test('a configuration that comes while it starts and cannot be used leaves the last good one', async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const hosted = await host(t, folder(t), upstream.url, {
    starting: (core, config) => core.configure({ config: unusable(config), logLevel: 'fatal' }),
  });
  assert.match((await hosted.configured()) ?? '', /ENOENT.*ca\.pem/);
  await crash(hosted);
  assert.equal((await ask(hosted.url, large)).status, 200);
  assert.equal(hosted.core.restarts, 1);
});

test('another configuration helps a core that cannot start with the one it has', async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const hosted = await host(t, folder(t), upstream.url, {
    first: unusable,
    starting: (core, config) => core.configure({ config, logLevel: 'fatal' }),
  });
  assert.equal(await hosted.configured(), null);
  await crash(hosted);
  assert.equal((await ask(hosted.url, large)).status, 200);
});

test('--proxy-only: SIGHUP takes what can change, names what cannot, and keeps the old if the new is wrong', async (t) => {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const file = join(folder(t), 'agentrmd.yaml');
  const write = (proxy: string): void => writeFileSync(file, `proxy: {${proxy}}\n`);
  write('body: 1M');
  const { child, url, logged } = await startProxyOnly(t, {
    AGENTRM_CONFIG: file,
    AGENTRM_UPSTREAM_ANTHROPIC: upstream.url,
  });
  const larger = turn(MESSAGES, false, 'x'.repeat(4_000));
  assert.equal((await ask(url, larger)).status, 200);
  write('body: 2K, user: somebody');
  child.kill('SIGHUP');
  assert.match(await logged('needs a restart'), /"setting":"proxy\.user"/);
  await logged('configuration reloaded');
  assert.equal((await ask(url, larger)).status, 413);
  for (const [wrong, why] of [
    ['body: many', 'proxy.body'],
    ['body: 1M, upstreams: {anthropic: {ca: /nonexistent/ca.pem}}', 'ENOENT'],
  ] as const) {
    write(wrong);
    child.kill('SIGHUP');
    assert.ok((await logged('configuration kept')).includes(why));
    assert.equal((await ask(url, larger)).status, 413);
  }
});

test('SIGHUP: a configuration that another version has read is not taken', async (t) => {
  const installed = folder(t);
  cpSync(join(top, 'daemon'), join(installed, 'daemon'), { recursive: true });
  symlinkSync(join(top, 'node_modules'), join(installed, 'node_modules'));
  const install = (version: string): void =>
    writeFileSync(join(installed, 'package.json'), JSON.stringify({ type: 'module', version }));
  install('1.0.0');
  const { child, logged } = await startProxyOnly(t, {}, installed);
  child.kill('SIGHUP');
  await logged('configuration reloaded');
  install('1.1.0');
  child.kill('SIGHUP');
  assert.match(await logged('configuration kept'), /agentrm 1\.1\.0 was installed: needs a restart/);
});

test('--proxy-only: serves when it says ready, finishes what runs on SIGTERM, ends with 0', async (t) => {
  const gate = Promise.withResolvers<void>();
  const upstream = await StandIn.start(t, () => ({
    headers: STREAM_HEADERS,
    steps: [String(MESSAGES.events[0]), { after: gate.promise }, ...MESSAGES.events.slice(1)],
  }));
  const { child, url, dir } = await startProxyOnly(t, { AGENTRM_UPSTREAM_ANTHROPIC: upstream.url });
  assert.equal((await ask(url, { method: 'HEAD', path: '/' })).status, 200);
  assert.ok(existsSync(join(dir, 'socket')));
  const stream = await open(url, turn(MESSAGES, true));
  const first = await nextChunk(stream);
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  gate.resolve();
  const rest = await readAll(stream);
  assert.ok(rest.complete);
  assert.equal(Buffer.concat([first, rest.body]).toString(), MESSAGES.events.join(''));
  assert.deepEqual(await exited, [0, null]);
});

test('--proxy-only: a second one refuses; the socket has health and metrics', async (t) => {
  const upstream = await StandIn.start(t, () => ({ headers: JSON_HEADERS, steps: [MESSAGES.whole] }));
  const { dir } = await startProxyOnly(t, { AGENTRM_UPSTREAM_ANTHROPIC: upstream.url });
  const get = (path: string) => fetchSocket(join(dir, 'socket'), path);
  assert.equal(await get('/healthz'), 'ok\n');
  assert.match(await get('/metrics'), /^agentrm_turns_total\{outcome="ok"\} 0$/m);
  assert.equal(JSON.parse(await get('/v1/turns')).running, 0);
  const monitor = JSON.parse(await get('/v1/monitor')) as Monitor;
  assert.deepEqual([monitor.proxy?.running, monitor.liveCalls], [0, []]);
  assert.ok(monitor.host.totalBytes > 0);
  assert.deepEqual(JSON.parse(await get('/v1/sessions')), { sessions: [] });
  assert.match(JSON.parse(await get('/v1/nowhere')).error, /^no such path: \/v1\/nowhere; .*--proxy-only/);
  const second = spawn(
    process.execPath,
    [join(top, 'daemon/main.ts'), '--proxy-only', '--socket', join(dir, 'socket')],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH, HOME: dir },
    },
  );
  let stderr = '';
  second.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const [code] = await once(second, 'close');
  assert.equal(code, 1);
  assert.match(stderr, /another daemon answers there/);
});

test('--proxy-only: the command line says how it stands, and that there are no tool calls', async (t) => {
  const { dir, child } = await startProxyOnly(t, {});
  const agentrm = (...args: string[]) => cli(join(dir, 'socket'), args);
  // Degraded: nothing is enforced.
  const status = await agentrm('status');
  assert.deepEqual([status.code, status.err], [5, '']);
  assert.match(status.out, /every command runs unmanaged[\s\S]*--proxy-only/);
  const json = await agentrm('status', '--json');
  const { pid, mode, backend, calls } = JSON.parse(json.out);
  assert.deepEqual(
    [json.code, json.err, pid, mode, backend.mode, calls.running],
    [5, '', child.pid, 'proxy-only', 'none', 0],
  );
  const doctor = await agentrm('doctor', '--json');
  const [daemon, enforcement] = JSON.parse(doctor.out).checks;
  assert.deepEqual([doctor.code, daemon.status, enforcement.status], [1, 'ok', 'fail']);
  for (const command of ['calls', 'events', 'advise']) {
    const { code, out, err } = await agentrm(command, '--json');
    assert.deepEqual([code, out], [1, '']);
    assert.match(err, /^agentrm: no such path: .*--proxy-only.*\n$/);
  }
});

test('--proxy-only: on TCP there are metrics and health, and nothing else', async (t) => {
  const port = await freePort();
  const config = join(folder(t), 'agentrmd.yaml');
  writeFileSync(config, `metrics:\n  listen: 127.0.0.1:${port}\n`);
  await startProxyOnly(t, { AGENTRM_CONFIG: config });
  const get = async (path: string) => (await ask(`http://127.0.0.1:${port}`, { method: 'GET', path })).status;
  assert.deepEqual(
    await Promise.all(['/healthz', '/metrics', '/v1/status', '/v1/doctor'].map(get)),
    [200, 200, 403, 403],
  );
});

async function cli(
  socket: string,
  args: readonly string[],
): Promise<{ code: number; out: string; err: string }> {
  const program = join(top, 'daemon/cli/main.ts');
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', program, '--socket', socket, ...args],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { PATH: process.env.PATH } },
  );
  const [out, err, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ]);
  return { code, out, err };
}

async function fetchSocket(socketPath: string, path: string): Promise<string> {
  const { request } = await import('node:http');
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, path }, (response) => {
      readAll(response).then(({ body }) => resolve(body.toString()), reject);
    });
    sent.on('error', reject);
    sent.end();
  });
}
