// SPDX-License-Identifier: Apache-2.0
// agentrmd with its core: the proxy is there when the daemon is, without its rights, and neither feels the other's end.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { TestDaemon, top, until } from '../lib/daemon.ts';
import { freePort } from '../lib/port.ts';
import { MESSAGES } from '../proxy/answers.ts';
import { ask, turn } from '../proxy/lab.ts';
import { StandIn } from '../proxy/upstream.ts';
import { metric } from './peers.ts';

const needsRoot = { skip: process.getuid?.() === 0 ? false : 'needs root' };

async function started(t: TestContext, settings = '', launch?: readonly string[]) {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  const port = await freePort();
  const daemon = new TestDaemon({
    proxy: true,
    ...(launch && { launch }),
    config: `proxy: { listen: "127.0.0.1:${port}", upstreams: { anthropic: { url: "${upstream.url}" } }${settings} }\n`,
  });
  t.after(() => daemon.close());
  await daemon.start();
  return { daemon, url: `http://127.0.0.1:${port}` };
}

const listens = (daemon: TestDaemon, times: number) =>
  until(() => daemon.log.split('"msg":"proxy listens"').length > times, `it listens for the ${times}. time`);

test('serves turns in a process without the daemon’s rights', needsRoot, async (t) => {
  const { daemon, url } = await started(t);
  await listens(daemon, 1);
  assert.equal((await ask(url, turn(MESSAGES, false))).status, 200);
  assert.equal(await metric(daemon, 'agentrm_turns_total{outcome="ok"}'), 1);
  const tasks = `/proc/${coreOf(daemon)}/task`;
  for (const task of readdirSync(tasks)) {
    const status = readFileSync(`${tasks}/${task}/status`, 'utf8');
    assert.match(status, /^Uid:(\t[1-9]\d*){4}$/m);
    assert.match(status, /^Gid:(\t[1-9]\d*){4}$/m);
    assert.match(status, /^Groups:\s*$/m);
    assert.match(status, /^CapPrm:\t0+\nCapEff:\t0+$/m);
  }
});

test('serves turns from a checkout that only root can enter', needsRoot, async (t) => {
  const script = `mount -t tmpfs -o mode=0700 tmpfs /mnt && mkdir /mnt/in && mount --rbind ${top} /mnt/in &&
    exec /mnt/in/dist/agentrmd "$@"`;
  const { daemon, url } = await started(t, '', ['unshare', '--mount', 'sh', '-c', script, 'sh']);
  await listens(daemon, 1);
  assert.equal((await ask(url, turn(MESSAGES, false))).status, 200);
});

test('the core dies: the daemon goes on, and the next one serves', async (t) => {
  const { daemon, url } = await started(t);
  await listens(daemon, 1);
  const before = daemon.pid;
  process.kill(coreOf(daemon), 'SIGKILL');
  await listens(daemon, 2);
  assert.equal((await ask(url, turn(MESSAGES, false))).status, 200);
  assert.equal((await daemon.status()).pid, before);
  assert.ok((await daemon.events()).some(({ kind }) => kind === 'core-down'));
});

test('the daemon stops or dies: no core is left', async (t) => {
  const { daemon } = await started(t);
  await listens(daemon, 1);
  const first = coreOf(daemon);
  assert.equal(await daemon.stop(), 0);
  assert.equal(existsSync(`/proc/${first}`), false);
  await daemon.start();
  await listens(daemon, 2);
  const second = coreOf(daemon);
  await daemon.crash();
  await until(() => !existsSync(`/proc/${second}`), 'the core has ended');
});

test('a port that is taken: the daemon does its other work', async (t) => {
  const taken = await StandIn.start(t, () => 'silent');
  const daemon = new TestDaemon({ proxy: true, config: `proxy: { listen: "127.0.0.1:${taken.port}" }\n` });
  t.after(() => daemon.close());
  await daemon.start();
  await until(() => daemon.log.includes('EADDRINUSE'), 'it is said');
  assert.equal((await daemon.run('exit 7')).code, 7);
});

test('SIGHUP: the core has the new configuration as well, and what takes a restart is named', async (t) => {
  const { daemon, url } = await started(t, ', body: 1M');
  await listens(daemon, 1);
  const large = turn(MESSAGES, false, 'x'.repeat(4_000));
  assert.equal((await ask(url, large)).status, 200);
  const before = coreOf(daemon);
  const text = readFileSync(daemon.configPath, 'utf8').replace(
    ', body: 1M',
    ', body: 2K, queue: { policy: deadline }',
  );
  writeFileSync(daemon.configPath, text);
  daemon.signal('SIGHUP');
  await until(() => daemon.log.includes('proxy reconfigured'), 'it is taken');
  assert.equal((await ask(url, large)).status, 413);
  assert.match(daemon.log, /"setting":"proxy\.queue\.policy","msg":"needs a restart"/);
  assert.ok(existsSync(`/proc/${before}`), 'the same core');
});

/** The newest core that listened. */
function coreOf({ log }: TestDaemon): number {
  const lines = log.split('\n').filter((line) => line.includes('"msg":"proxy listens"'));
  const { corePid } = JSON.parse(lines.at(-1) ?? '{}') as { corePid?: number };
  assert.ok(corePid !== undefined && corePid > 1);
  return corePid;
}
