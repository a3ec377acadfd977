// SPDX-License-Identifier: Apache-2.0
// What goes through the proxy is what a direct connection would have brought, byte for byte, in both directions.
import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { brotliCompressSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { API_CASES, type ApiCase, MESSAGES } from './answers.ts';
import { ask, directly, held, type RawResponse, startProxy, turn } from './lab.ts';
import { JSON_HEADERS, STREAM_HEADERS, StandIn } from './upstream.ts';

/** Headers that belong to one connection: node sets them on each. */
const OWN = new Set(['connection', 'keep-alive', 'transfer-encoding']);

/** What must be equal. */
function essence({ status, statusText, rawHeaders, body, complete }: RawResponse) {
  const headers = rawHeaders.flatMap((name, at) =>
    at % 2 === 0 && !OWN.has(name.toLowerCase()) ? [`${name}: ${rawHeaders[at + 1]}`] : [],
  );
  return { status, statusText, headers, body: body.toString('latin1'), complete };
}

/** Pieces that end anywhere, also inside characters and line ends. */
function shredded(text: string, size: number): Buffer[] {
  const bytes = Buffer.from(text);
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
    bytes.subarray(at * size, (at + 1) * size),
  );
}

const EXTRA = ['Request-Id', 'req_1', 'set-cookie', 'a=1', 'Set-Cookie', 'b=2', 'X-Odd', 'caf\u00e9'];

for (const api of API_CASES) {
  suite(api.path, () => {
    const shapes: Record<string, (one: ApiCase) => readonly (string | Buffer)[]> = {
      'in whole events': ({ events }) => events,
      'in one piece': ({ events }) => [events.join('')],
      'in pieces of 7 bytes': ({ events }) => shredded(events.join(''), 7),
      'with CRLF': ({ events }) => events.map((event) => event.replaceAll('\n', '\r\n')),
      'without an end of the last event': ({ events }) => [events.join('').slice(0, -2)],
      'that is no event stream at all': () => ['<html>\n\n', 'oops', '\u0000\u0001'],
    };
    for (const [name, shape] of Object.entries(shapes)) {
      test(`a stream ${name}`, async (t) => {
        const steps = shape(api);
        const upstream = await StandIn.start(t, () => ({ headers: [...STREAM_HEADERS, ...EXTRA], steps }));
        const lab = await startProxy(t, upstream);
        const direct = await ask(upstream.url, turn(api, true));
        const proxied = await ask(lab.url, turn(api, true));
        assert.deepEqual(essence(proxied), essence(direct));
        assert.equal(held(lab), 0);
      });
    }

    test('a whole answer, with and without a length', async (t) => {
      const { length } = Buffer.from(api.whole);
      const upstream = await StandIn.start(t, (_request, index) => ({
        headers: [...JSON_HEADERS, ...EXTRA, ...(index < 2 ? [] : ['Content-Length', String(length)])],
        steps: [api.whole.slice(0, 20), api.whole.slice(20)],
      }));
      const lab = await startProxy(t, upstream);
      for (const _ of ['chunked', 'length']) {
        const direct = await ask(upstream.url, turn(api, false));
        assert.deepEqual(essence(await ask(lab.url, turn(api, false))), essence(direct));
      }
    });

    test('what comes behind the body', async (t) => {
      const trailers = { 'X-Checksum': 'a, b', 'Server-Timing': 'gpu;dur=1' };
      const upstream = await StandIn.start(t, () => ({
        headers: STREAM_HEADERS,
        steps: api.events,
        trailers,
      }));
      const lab = await startProxy(t, upstream);
      for (const asked of [turn(api, true), { method: 'GET', path: '/v1/models' }]) {
        const proxied = await ask(lab.url, asked);
        assert.deepEqual(proxied.rawTrailers, Object.entries(trailers).flat());
        assert.equal(proxied.body.toString(), api.events.join(''));
      }
    });

    test('the request, as it was sent', async (t) => {
      const upstream = await StandIn.start(t, () => ({ steps: [api.whole] }));
      const lab = await startProxy(t, upstream);
      // Spaces, key order and bytes that are no UTF-8 stay.
      const body = Buffer.concat([
        Buffer.from(`  {"a" :1,\n"model":"m", "stream":false,"x":"`),
        Buffer.from([0xff, 0xfe]),
        Buffer.from('"} '),
      ]);
      const headers = [
        'Content-Type',
        'application/json',
        'X-Custom',
        'One',
        'x-custom',
        'two',
        'Accept-Encoding',
        'gzip, br',
      ];
      const keys = Object.entries(api.headers).flat();
      await ask(lab.url, {
        path: `${api.path}?beta=true&x=%2F`,
        headers: [
          'Host',
          'here',
          ...headers,
          ...keys,
          'Connection',
          'close, X-Hop',
          'X-Hop',
          '1',
          'TE',
          'trailers',
        ],
        body,
      });
      const [got] = upstream.received;
      assert.ok(got);
      assert.deepEqual(got.body, body);
      assert.equal(got.target, `${api.path}?beta=true&x=%2F`);
      assert.equal(got.headers['accept-encoding'], 'identity');
      assert.equal(got.headers.host, `127.0.0.1:${upstream.port}`);
      for (const name of ['x-hop', 'te', 'transfer-encoding'])
        assert.equal(got.headers[name], undefined, name);
      const raw = got.rawHeaders.join('\n');
      assert.ok(raw.includes('X-Custom\nOne\nx-custom\ntwo'), raw);
      for (const [name, value] of Object.entries(api.headers)) assert.equal(got.headers[name], value);
    });

    test('what the response told of tokens is counted', async (t) => {
      const whole = { steps: [api.whole] };
      const stream = { headers: STREAM_HEADERS, steps: api.events };
      const upstream = await StandIn.start(t, (_request, index) => (index === 0 ? whole : stream));
      const lab = await startProxy(t, upstream);
      await ask(lab.url, turn(api, false));
      await ask(lab.url, turn(api, true));
      const provider = api.api === 'messages' ? 'anthropic' : 'openai';
      const text = await lab.proxy.metrics.text();
      assert.match(
        text,
        new RegExp(`turn_input_tokens_total{provider="${provider}"} ${2 * api.usage.inputTokens}\n`),
      );
      assert.match(
        text,
        new RegExp(`turn_output_tokens_total{provider="${provider}"} ${2 * api.usage.outputTokens}\n`),
      );
    });
  });
}

suite('compressed answers, although none was asked for', () => {
  const encoders = { gzip: gzipSync, br: brotliCompressSync, zstd: zstdCompressSync };
  for (const [encoding, encode] of Object.entries(encoders)) {
    for (const stream of [true, false]) {
      test(`${encoding}, ${stream ? 'streamed' : 'whole'}: passed as they are, and read`, async (t) => {
        const bytes = encode(stream ? MESSAGES.events.join('') : MESSAGES.whole);
        const headers = [...(stream ? STREAM_HEADERS : JSON_HEADERS), 'content-encoding', encoding];
        const upstream = await StandIn.start(t, () => ({
          headers,
          steps: [bytes.subarray(0, 50), bytes.subarray(50)],
        }));
        const lab = await startProxy(t, upstream);
        const direct = await ask(upstream.url, turn(MESSAGES, stream));
        assert.deepEqual(essence(await ask(lab.url, turn(MESSAGES, stream))), essence(direct));
        const text = await lab.proxy.metrics.text();
        assert.match(
          text,
          new RegExp(`turn_output_tokens_total{provider="anthropic"} ${MESSAGES.usage.outputTokens}\n`),
        );
        assert.equal(held(lab), 0);
      });
    }
  }

  test('what says it is compressed and is not passes too', async (t) => {
    const headers = [...STREAM_HEADERS, 'content-encoding', 'gzip'];
    const upstream = await StandIn.start(t, () => ({ headers, steps: MESSAGES.events }));
    const lab = await startProxy(t, upstream);
    const { body, complete } = await ask(lab.url, turn(MESSAGES, true));
    assert.equal(body.toString(), MESSAGES.events.join(''));
    assert.ok(complete);
    assert.equal(held(lab), 0);
  });
});

suite('errors of the upstream', () => {
  for (const api of API_CASES) {
    for (const status of [400, 401, 403, 404, 413, 422]) {
      test(`${api.path}: ${status} reaches the client as it is, at once`, async (t) => {
        const upstream = await StandIn.start(t, () => ({
          status,
          headers: [...JSON_HEADERS, 'x-should-retry', 'false'],
          steps: ['{"error":{"message":"no"}', '}'],
        }));
        const lab = await startProxy(t, upstream);
        const direct = await ask(upstream.url, turn(api, true));
        assert.deepEqual(essence(await ask(lab.url, turn(api, true))), essence(direct));
        assert.equal(upstream.received.length, 2);
        assert.equal(held(lab), 0);
      });
    }
  }
});

suite('other paths', () => {
  const upstreams = async (t: Parameters<typeof StandIn.start>[0]) => {
    const anthropic = await StandIn.start(t, () => ({ steps: ['anthropic'] }));
    const openai = await StandIn.start(t, () => ({ steps: ['openai'] }));
    const lab = await startProxy(t, anthropic, {
      settings: { upstreams: { anthropic: directly(anthropic.url), openai: directly(`${openai.url}/v1/`) } },
    });
    return { anthropic, openai, lab };
  };

  test('go where their headers say', async (t) => {
    const { lab, openai } = await upstreams(t);
    const cases: [string, Record<string, string>, string][] = [
      ['/v1/models', {}, 'openai'],
      ['/v1/models', { 'anthropic-version': '2023-06-01' }, 'anthropic'],
      ['/v1/files', { 'x-api-key': 'k' }, 'anthropic'],
      ['/v1/messages/count_tokens', {}, 'anthropic'],
      ['/v1/messages/batches', {}, 'anthropic'],
    ];
    for (const [path, headers, expected] of cases) {
      assert.equal((await ask(lab.url, { method: 'GET', path, headers })).body.toString(), expected, path);
    }
    // The version of the API is in the base URL once, whoever wrote it there.
    assert.equal(openai.received[0]?.target, '/v1/models');
  });

  test('bodies flow both ways, of any size', async (t) => {
    const { lab, openai } = await upstreams(t);
    const body = Buffer.alloc(40 * 2 ** 20, 'x');
    const { status } = await ask(lab.url, {
      path: '/v1/files',
      headers: { 'content-type': 'application/octet-stream' },
      body,
    });
    assert.equal(status, 200);
    assert.equal(openai.received[0]?.body.length, body.length);
  });

  test('HEAD / is answered here', async (t) => {
    const { lab, anthropic, openai } = await upstreams(t);
    const { status, body } = await ask(lab.url, { method: 'HEAD', path: '/' });
    assert.deepEqual([status, body.length], [200, 0]);
    assert.equal(anthropic.received.length + openai.received.length, 0);
  });

  test('an upstream that is not there: 502 in the form of its API', async (t) => {
    const { lab, openai } = await upstreams(t);
    await openai.close();
    const { status, body } = await ask(lab.url, { method: 'GET', path: '/v1/models' });
    assert.equal(status, 502);
    assert.equal(JSON.parse(body.toString()).error.type, 'server_error');
  });
});
