// SPDX-License-Identifier: Apache-2.0
// Upstreams behind a proxy of a company, and with certificates of an authority of their own.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { upstreamsOf } from '../../daemon/core/upstreams.ts';
import { freePort } from '../lib/port.ts';
import { MESSAGES } from './answers.ts';
import { makeCertificate } from './certificate.ts';
import { startHttpProxy } from './http-proxy.ts';
import { ask, startProxy, turn } from './lab.ts';
import { startProxyOnly } from './proxy-only.ts';
import { type Script, STREAM_HEADERS, StandIn } from './upstream.ts';

/** A name that no DNS has: who connects to it has asked the proxy. */
const NAME = 'api.agentrm.test';

const answers: Script = () => ({ headers: STREAM_HEADERS, steps: MESSAGES.events });
const noRetries = { retry: { most: 0 } };

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-via-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** An upstream that speaks TLS, and what vouches for it. */
async function secure(t: TestContext) {
  const certificate = makeCertificate(folder(t), `DNS:${NAME},IP:127.0.0.1`);
  return { ...certificate, ca: certificate.caPath, upstream: await StandIn.start(t, answers, certificate) };
}

test('through CONNECT the API gets what it gets directly, and the proxy sees none of it', async (t) => {
  const { upstream, ca } = await secure(t);
  const via = await startHttpProxy(t, upstream.port, 'user:pass word');
  const settings = upstreamsOf(
    {
      anthropic: { url: `https://${NAME}`, via: `http://user:pass%20word@127.0.0.1:${via.port}`, ca },
      openai: { url: upstream.url, via: 'direct', ca },
    },
    {},
  );
  const lab = await startProxy(t, upstream, { settings: { upstreams: settings } });
  const asked = turn(MESSAGES, true);
  const headers = [
    ...['Host', 'localhost', 'X-Twice', '1', 'content-type', 'application/json', 'x-twice', '2'],
    ...['X-Api-Key', 'sk-test', 'content-length', String(Buffer.byteLength(String(asked.body)))],
  ];
  for (const url of [settings.anthropic, settings.openai]) {
    const one = await startProxy(t, upstream, { settings: { upstreams: { anthropic: url, openai: url } } });
    const { status, body } = await ask(one.url, { ...asked, headers });
    assert.equal(status, 200);
    assert.equal(body.toString(), MESSAGES.events.join(''));
  }
  const [through, direct] = upstream.received;
  const withoutHost = (raw: readonly string[] = []) =>
    raw.filter((_part, at) => raw[at - (at % 2)] !== 'host');
  assert.deepEqual(withoutHost(through?.rawHeaders), withoutHost(direct?.rawHeaders));
  assert.equal(through?.headers.host, NAME);
  assert.deepEqual(through?.body, direct?.body);
  assert.deepEqual(
    via.asked.map(({ method, target }) => [method, target]),
    [['CONNECT', `${NAME}:443`]],
  );
  assert.equal(via.asked[0]?.headers['x-api-key'], undefined);

  // A tunnel is kept, as a connection is.
  for (const text of ['one', 'two', 'three']) {
    assert.equal((await ask(lab.url, turn(MESSAGES, true, text))).status, 200);
  }
  assert.equal(via.asked.length, 2);
});

test('a proxy that refuses, or is not there, is a 502 that names it, without its password', async (t) => {
  const { upstream, ca } = await secure(t);
  const via = await startHttpProxy(t, upstream.port, 'user:right');
  const gone = await freePort();
  for (const [port, reason] of [
    [via.port, '407'],
    [gone, 'ECONNREFUSED'],
  ] as const) {
    const anthropic = { url: `https://${NAME}`, via: `http://user:wrong@127.0.0.1:${port}`, ca };
    const settings = { upstreams: upstreamsOf({ anthropic, openai: anthropic }, {}) };
    const lab = await startProxy(t, upstream, { settings, scheduler: noRetries });
    const { status, body } = await ask(lab.url, turn(MESSAGES, true));
    assert.equal(status, 502);
    const { message } = JSON.parse(body.toString()).error;
    assert.match(message, new RegExp(`${NAME}:443 by the proxy 127.0.0.1:${port}: .*${reason}`));
    assert.doesNotMatch(message, /wrong/);
  }
  assert.equal(upstream.received.length, 0);
});

test('without TLS the proxy is asked for the whole URL', async (t) => {
  const upstream = await StandIn.start(t, answers);
  const via = await startHttpProxy(t, upstream.port);
  const { anthropic } = upstreamsOf(
    {
      anthropic: { url: `http://${NAME}/base`, via: `http://user:100%@127.0.0.1:${via.port}`, ca: null },
      openai: { url: upstream.url, via: 'direct', ca: null },
    },
    {},
  );
  const lab = await startProxy(t, upstream, { settings: { upstreams: { anthropic, openai: anthropic } } });
  const { status, body } = await ask(lab.url, turn(MESSAGES, true));
  assert.equal(status, 200);
  assert.equal(body.toString(), MESSAGES.events.join(''));
  assert.deepEqual(
    via.asked.map(({ method, target, headers }) => [method, target, headers['proxy-authorization']]),
    [['POST', `http://${NAME}/base/v1/messages`, `Basic ${Buffer.from('user:100%').toString('base64')}`]],
  );
  assert.equal(upstream.received[0]?.headers.host, NAME);
});

for (const [scheme, target] of [
  ['https', `${NAME}:443`],
  ['http', `http://${NAME}/v1/messages`],
] as const) {
  test(`a proxy over TLS is asked for its own certificate, by its name or address, for ${scheme}`, async (t) => {
    // Two authorities in one file, as a company has them.
    const api = makeCertificate(folder(t), `DNS:${NAME}`);
    const own = makeCertificate(folder(t), 'DNS:localhost,IP:127.0.0.1');
    const ca = join(folder(t), 'both.pem');
    writeFileSync(ca, readFileSync(api.caPath, 'utf8') + readFileSync(own.caPath, 'utf8'));
    const upstream = await StandIn.start(t, answers, scheme === 'https' ? api : undefined);
    const via = await startHttpProxy(t, upstream.port, 'user:pass', own);
    for (const host of ['localhost', '127.0.0.1']) {
      const anthropic = { url: `${scheme}://${NAME}`, via: `https://user:pass@${host}:${via.port}`, ca };
      const settings = { upstreams: upstreamsOf({ anthropic, openai: anthropic }, {}) };
      const lab = await startProxy(t, upstream, { settings, scheduler: noRetries });
      const { status, body } = await ask(lab.url, turn(MESSAGES, true));
      assert.equal(status, 200, body.toString());
      assert.equal(body.toString(), MESSAGES.events.join(''));
    }
    assert.deepEqual(
      via.asked.map((one) => [one.target, one.serverName]),
      [
        [target, 'localhost'],
        [target, null],
      ],
    );
    assert.deepEqual(
      upstream.received.map(({ headers }) => headers.host),
      [NAME, NAME],
    );
  });
}

test('an address of IPv6 is asked of the proxy in brackets', async (t) => {
  const { caPath, ...identity } = makeCertificate(folder(t), 'IP:::1');
  const upstream = await StandIn.start(t, answers, identity);
  const via = await startHttpProxy(t, upstream.port);
  const anthropic = { url: 'https://[::1]:8443', via: `http://127.0.0.1:${via.port}`, ca: caPath };
  const settings = { upstreams: upstreamsOf({ anthropic, openai: anthropic }, {}) };
  const lab = await startProxy(t, upstream, { settings, scheduler: noRetries });
  const { status, body } = await ask(lab.url, turn(MESSAGES, true));
  assert.equal(status, 200, body.toString());
  assert.deepEqual(
    via.asked.map((one) => [one.target, one.headers.host]),
    [['[::1]:8443', '[::1]:8443']],
  );
});

test('an authority of its own is trusted when it is configured, and only then', async (t) => {
  const { upstream, ca } = await secure(t);
  for (const [file, expected] of [
    [ca, 200],
    [null, 502],
  ] as const) {
    const anthropic = { url: upstream.url, via: 'direct', ca: file };
    const settings = { upstreams: upstreamsOf({ anthropic, openai: anthropic }, {}) };
    const lab = await startProxy(t, upstream, { settings, scheduler: noRetries });
    const { status, body } = await ask(lab.url, turn(MESSAGES, true));
    assert.equal(status, expected);
    if (expected === 502) assert.match(body.toString(), /certificate/);
  }
  // It vouches for other names: not for this one.
  const anthropic = { url: upstream.url.replace('127.0.0.1', 'localhost'), via: 'direct', ca };
  const settings = { upstreams: upstreamsOf({ anthropic, openai: anthropic }, {}) };
  const lab = await startProxy(t, upstream, { settings, scheduler: noRetries });
  assert.match((await ask(lab.url, turn(MESSAGES, true))).body.toString(), /altnames|does not match/);
  assert.equal(upstream.received.length, 1);
});

test('files without a certificate are told by their names', (t) => {
  const path = join(folder(t), 'ca.pem');
  const of = (ca: string) => {
    const one = { url: 'https://api.example', via: 'direct', ca };
    return () => upstreamsOf({ anthropic: one, openai: one }, {});
  };
  assert.throws(of(path), /ENOENT.*ca\.pem/);
  writeFileSync(path, 'not a certificate\n');
  assert.throws(of(path), /ca\.pem: no certificate in PEM/);
});

test('agentrmd takes the proxy and the authority of its environment', async (t) => {
  const { upstream, caPath } = await secure(t);
  const via = await startHttpProxy(t, upstream.port);
  const { url } = await startProxyOnly(t, {
    AGENTRM_UPSTREAM_ANTHROPIC: `https://${NAME}`,
    HTTPS_PROXY: `127.0.0.1:${via.port}`,
    NODE_EXTRA_CA_CERTS: caPath,
  });
  const { status, body } = await ask(url, turn(MESSAGES, true));
  assert.equal(status, 200, body.toString());
  assert.deepEqual(
    via.asked.map(({ target }) => target),
    [`${NAME}:443`],
  );
});
