// SPDX-License-Identifier: Apache-2.0
// Clients and upstreams that do what they should not: an error for that client alone, and lanes stay right.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { suite, type TestContext, test } from 'node:test';
import { API_CASES, CHAT, MESSAGES } from './answers.ts';
import { ask, held, type Lab, startProxy, turn } from './lab.ts';
import { JSON_HEADERS, STREAM_HEADERS, StandIn } from './upstream.ts';

const MiB = 2 ** 20;

/** Sends bytes as they are and reads what comes until the connection ends. */
async function talk(port: number, ...pieces: (string | Buffer)[]): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('error', () => {});
  for (const piece of pieces) socket.write(piece);
  await once(socket, 'close');
  return Buffer.concat(chunks).toString();
}

function bodyOf(response: string) {
  return JSON.parse(response.slice(response.indexOf('\r\n\r\n') + 4));
}

/** The lab still serves, and nothing is held. */
async function assertWell(lab: Lab): Promise<void> {
  assert.equal((await ask(lab.url, turn(MESSAGES, false))).status, 200);
  assert.equal(held(lab), 0);
}

async function usual(t: TestContext, options: Parameters<typeof startProxy>[2] = {}) {
  const upstream = await StandIn.start(t, () => ({ steps: [MESSAGES.whole] }));
  return { upstream, lab: await startProxy(t, upstream, options) };
}

for (const api of API_CASES) {
  suite(api.path, () => {
    const bodies: Record<string, string | Buffer> = {
      'no JSON': 'hello',
      'half of a JSON object': '{"model":"m","messages":[{"role":"us',
      'closing what was never opened': ']}}}]',
      'a list': '[1,2,3]',
      nothing: '',
      zeros: Buffer.alloc(1000),
      'depth without end': '['.repeat(100_000),
      'members of the wrong kind':
        '{"model":7,"stream":"yes","messages":"no","metadata":[],"input":{},"store":null}',
      'a model of 10 MB': JSON.stringify({ model: 'm'.repeat(10 * MiB) }),
    };
    for (const [name, body] of Object.entries(bodies)) {
      test(`${name}: the API's own affair`, async (t) => {
        const error = { status: 400, headers: [...JSON_HEADERS], steps: ['{"error":{"message":"bad"}}'] };
        const upstream = await StandIn.start(t, () => error);
        const lab = await startProxy(t, upstream);
        const { status, body: answer } = await ask(lab.url, { ...turn(api, false), body });
        assert.deepEqual([status, answer.toString()], [400, error.steps[0]]);
        assert.deepEqual(upstream.received[0]?.body, Buffer.from(body));
        upstream.script = () => ({ steps: [MESSAGES.whole] });
        await assertWell(lab);
      });
    }

    test('a body over the limit: 413, announced or not', async (t) => {
      const { upstream, lab } = await usual(t, { settings: { maxBodyBytes: MiB } });
      const body = Buffer.alloc(3 * MiB, ' ');
      const asked = turn(api, false);
      const announced = await ask(lab.url, { ...asked, body });
      const chunked = await ask(lab.url, {
        ...asked,
        headers: { ...asked.headers, 'transfer-encoding': 'chunked' },
        body,
      });
      for (const { status, body, headers } of [announced, chunked]) {
        assert.equal(status, 413);
        const { type } = JSON.parse(body.toString()).error;
        assert.equal(type, api === MESSAGES ? 'request_too_large' : 'invalid_request_error');
        assert.equal(headers.connection, 'close');
      }
      assert.equal(upstream.received.length, 0);
      assert.equal(lab.proxy.metrics.rejections('too-large'), 2);
      await assertWell(lab);
    });

    test('more bodies at once than there is room for: come again', async (t) => {
      const upstream = await StandIn.start(t, (_request, index) =>
        index === 0 ? 'silent' : { steps: [api.whole] },
      );
      const lab = await startProxy(t, upstream, { settings: { maxBodiesBytes: MiB } });
      const asked = turn(api, false, 'x'.repeat(600 * 1024));
      const first = ask(lab.url, asked);
      first.catch(() => {});
      await upstream.count(1);
      const { status, headers, body } = await ask(lab.url, asked);
      assert.equal(status, api === MESSAGES ? 529 : 503);
      assert.equal(headers['retry-after'], '1');
      assert.ok(JSON.parse(body.toString()).error.message);
      await lab.proxy.close(0);
      await assert.rejects(first);
      assert.match(await lab.proxy.metrics.text(), /agentrm_proxy_body_bytes 0\n/);
    });

    const lies: Record<string, string[]> = {
      'below nothing': ['-1', '-1', '0'],
      nothing: ['0', '0', '0'],
      text: ['many', 'NaN', 'soon'],
      endless: ['1e999', '9'.repeat(400), '99999-99-99T00:00:00Z'],
      empty: ['', '', ''],
    };
    for (const [name, [limit, remaining, reset]] of Object.entries(lies)) {
      test(`rate limits that say ${name} hold nobody up`, async (t) => {
        const kinds = ['requests', 'tokens', 'input-tokens', 'output-tokens'];
        const headers = kinds.flatMap((kind) =>
          ['anthropic-ratelimit-KIND-', 'x-ratelimit-'].flatMap((prefix) => {
            const name = (what: string) =>
              prefix.includes('KIND') ? `${prefix.replace('KIND', kind)}${what}` : `${prefix}${what}-${kind}`;
            return [
              name('limit'),
              limit ?? '',
              name('remaining'),
              remaining ?? '',
              name('reset'),
              reset ?? '',
            ];
          }),
        );
        const upstream = await StandIn.start(t, () => ({
          headers: [...JSON_HEADERS, ...headers, 'retry-after', limit ?? ''],
          steps: [api.whole],
        }));
        const lab = await startProxy(t, upstream);
        for (let round = 0; round < 3; round += 1) {
          const { status, headers } = await ask(lab.url, turn(api, false, `${round}`));
          assert.equal(status, 200);
          assert.equal(headers['x-ratelimit-limit-requests'], limit);
        }
        assert.equal(held(lab), 0);
      });
    }
  });
}

suite('what is no request', () => {
  test('headers that are too large: 431, in a form that fits both APIs', async (t) => {
    const { lab } = await usual(t);
    const large = `POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Large: ${'x'.repeat(80 * 1024)}\r\n\r\n`;
    const response = await talk(lab.port, large);
    assert.match(response, /^HTTP\/1\.1 431 /);
    const { type, error } = bodyOf(response);
    assert.deepEqual([type, error.type, error.code], ['error', 'invalid_request_error', null]);
    assert.equal(lab.proxy.metrics.rejections('headers-too-large'), 1);
    await assertWell(lab);
  });

  test('headers of 60 KB, as identity providers and agents make them, pass', async (t) => {
    const { lab, upstream } = await usual(t);
    const asked = turn(MESSAGES, false);
    const large = 'x'.repeat(60 * 1024);
    assert.equal(
      (await ask(lab.url, { ...asked, headers: { ...asked.headers, 'x-large': large } })).status,
      200,
    );
    assert.equal(upstream.received[0]?.headers['x-large'], large);
  });

  const nonsense: Record<string, string> = {
    'no HTTP': 'hello\r\n\r\n',
    TLS: '\x16\x03\x01\x02\x00\x01\x00\x01',
    'two lengths':
      'POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
    'length and chunks':
      'POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  };
  for (const [name, text] of Object.entries(nonsense)) {
    test(`${name}: 400`, async (t) => {
      const { lab, upstream } = await usual(t);
      assert.match(await talk(lab.port, text), /^HTTP\/1\.1 400 /);
      assert.equal(upstream.received.length, 0);
      await assertWell(lab);
    });
  }

  test('a chunk that is none: an error for that client, and no lane', async (t) => {
    const { lab, upstream } = await usual(t);
    const head = 'POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n';
    await talk(lab.port, `${head}5\r\nhello\r\nzz\r\n`);
    assert.equal(upstream.received.length, 0);
    await assertWell(lab);
  });

  test('another host in the request line: 400, nothing is fetched', async (t) => {
    const { lab, upstream } = await usual(t);
    const response = await talk(
      lab.port,
      'GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n',
    );
    assert.match(response, /^HTTP\/1\.1 400 /);
    assert.equal(upstream.received.length, 0);
  });

  test('CONNECT: 405', async (t) => {
    const { lab } = await usual(t);
    assert.match(
      await talk(lab.port, 'CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n'),
      /^HTTP\/1\.1 405 /,
    );
  });

  test('a WebSocket: 426 in the form of its API; other upgrades are only offers', async (t) => {
    const { lab, upstream } = await usual(t);
    const upgrade = (to: string) =>
      `GET /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${to}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n`;
    const response = await talk(lab.port, upgrade('websocket'));
    assert.match(response, /^HTTP\/1\.1 426 /);
    assert.equal(bodyOf(response).error.type, 'invalid_request_error');
    assert.equal(upstream.received.length, 0);
    const { status } = await ask(lab.url, {
      method: 'GET',
      path: '/v1/models',
      headers: { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'x' },
    });
    assert.equal(status, 200);
    assert.equal(upstream.received[0]?.headers.upgrade, undefined);
  });

  for (const [what, pieces] of Object.entries({
    'its headers': ['POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Slow: '],
    'its body': ['POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"model":'],
  })) {
    test(`a client that never ends ${what}: 408, and others are served`, async (t) => {
      const patience = { headersMs: 200, requestMs: 200, checkMs: 50 };
      const { lab, upstream } = await usual(t, { settings: { patience } });
      assert.match(await talk(lab.port, ...pieces), /^HTTP\/1\.1 408 /);
      assert.equal(lab.proxy.metrics.rejections('slow'), 1);
      assert.equal(upstream.received.length, 0);
      await assertWell(lab);
    });
  }

  test('a client that goes in the middle of its body leaves nothing', async (t) => {
    const { lab, upstream } = await usual(t);
    const socket = connect(lab.port, '127.0.0.1');
    socket.write('POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"model":');
    await once(socket, 'connect');
    socket.destroy();
    await assertWell(lab);
    assert.equal(upstream.received.length, 1);
  });
});

suite('upstreams that are no HTTP servers', () => {
  /** An upstream that writes these bytes when it has got a request, and closes. */
  async function raw(t: TestContext, answer: string): Promise<{ url: string }> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.once('data', () => socket.end(answer));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const address = server.address();
    return { url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}` };
  }
  const once_ = { retry: { most: 0 } };

  for (const [name, answer] of Object.entries({
    'no HTTP': 'what?\r\n\r\n',
    'nothing at all': '',
    'a head that ends in the middle': 'HTTP/1.1 200 OK\r\ncontent-ty',
    'endless headers': `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(200_000)}\r\n\r\n`,
  })) {
    test(`${name}: 502`, async (t) => {
      const lab = await startProxy(t, await raw(t, answer), { scheduler: once_ });
      const { status, body } = await ask(lab.url, turn(CHAT, true));
      assert.equal(status, 502);
      assert.equal(JSON.parse(body.toString()).error.type, 'server_error');
      assert.equal(held(lab), 0);
    });
  }

  for (const [name, tail] of Object.entries({
    'a chunk that is none': 'zz\r\n',
    'a chunk that is cut': '64\r\ndata: {"a',
  })) {
    test(`${name}, after an event: the event, then an error event`, async (t) => {
      const event = 'data: {"choices":[]}\n\n';
      const head = `HTTP/1.1 200 OK\r\n${STREAM_HEADERS[0]}: ${STREAM_HEADERS[1]}\r\ntransfer-encoding: chunked\r\n\r\n`;
      const upstream = await raw(t, `${head}${event.length.toString(16)}\r\n${event}\r\n${tail}`);
      const lab = await startProxy(t, upstream, { scheduler: once_ });
      const { status, body, complete } = await ask(lab.url, turn(CHAT, true));
      assert.equal(status, 200);
      assert.ok(complete);
      const text = body.toString();
      assert.ok(text.startsWith(event), text);
      assert.match(
        text.slice(event.length),
        /^data: \{"error":\{"message":"[^\n]*"type":"server_error"[^\n]*\n\n$/,
      );
      assert.equal(held(lab), 0);
    });
  }
});

test('one client’s nonsense does not touch another’s stream', async (t) => {
  const gate = Promise.withResolvers<void>();
  const upstream = await StandIn.start(t, () => ({
    headers: STREAM_HEADERS,
    steps: [String(CHAT.events[0]), { after: gate.promise }, ...CHAT.events.slice(1)],
  }));
  const lab = await startProxy(t, upstream);
  const good = ask(lab.url, turn(CHAT, true));
  await upstream.count(1);
  await Promise.all([
    talk(lab.port, 'hello\r\n\r\n'),
    talk(lab.port, `GET / HTTP/1.1\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`),
    ask(lab.url, { ...turn(CHAT, false), headers: { 'content-length': `${64 * MiB}` }, body: '{}' }).catch(
      () => {},
    ),
  ]);
  gate.resolve();
  const { body, complete } = await good;
  assert.ok(complete);
  assert.equal(body.toString(), CHAT.events.join(''));
  assert.equal(held(lab), 0);
});
