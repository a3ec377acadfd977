// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { type Block, encodeEvent, messageEvents } from './anthropic-events.ts';
import type { Delivery } from './delivery.ts';
import { type Answer, type ModelApi, type Script, startModelApi } from './model-api.ts';

const CONTENT: Block[] = [
  { type: 'text', text: 'I shall look at it – slowly.' },
  { type: 'tool_use', id: 'toolu_1', name: 'Bash', input: { command: 'printf "%s\\n" "ä\\"b"' } },
];

async function startFor(t: TestContext, script: Script): Promise<ModelApi> {
  const api = await startModelApi(script);
  t.after(() => api.close());
  return api;
}

function post(api: ModelApi, body: object, init: RequestInit = {}): Promise<Response> {
  return fetch(`${api.url}/v1/messages`, { method: 'POST', body: JSON.stringify(body), ...init });
}

const REQUEST = { model: 'some-model', max_tokens: 9, messages: [{ role: 'user', content: 'go' }] };
const STREAMED = { ...REQUEST, stream: true };

/** Puts a stream together as a client does: content blocks from their deltas, then the stop reason. */
function reassemble(stream: string): { content: unknown[]; stopReason: unknown } {
  const content: { type: string; text?: string; json?: string; input?: unknown }[] = [];
  let stopReason: unknown;
  for (const event of stream.split('\n\n').filter((part) => part !== '')) {
    const [name, data] = event.split('\n').map((line) => line.slice(line.indexOf(': ') + 2));
    const parsed = JSON.parse(data ?? '');
    assert.equal(parsed.type, name);
    const block = content[parsed.index];
    if (name === 'content_block_start') content[parsed.index] = parsed.content_block;
    if (name === 'message_delta') stopReason = parsed.delta.stop_reason;
    if (name !== 'content_block_delta' || block === undefined) continue;
    if (parsed.delta.type === 'text_delta') block.text += parsed.delta.text;
    else block.json = (block.json ?? '') + parsed.delta.partial_json;
  }
  for (const block of content) {
    if (block.json === undefined) continue;
    block.input = JSON.parse(block.json);
    delete block.json;
  }
  return { content, stopReason };
}

test('any content survives the way through stream events', () => {
  const block = fc.oneof(
    fc.record({ type: fc.constant('text' as const), text: fc.string({ unit: 'binary' }) }),
    fc.record({
      type: fc.constant('tool_use' as const),
      id: fc.string(),
      name: fc.string(),
      input: fc.dictionary(fc.string(), fc.jsonValue(), { noNullPrototype: true }),
    }),
  );
  fc.assert(
    fc.property(fc.array(block), (content) => {
      // The wire is JSON: -0 and the like are lost on it, whoever sends.
      const expected = JSON.parse(JSON.stringify(content));
      const events = messageEvents({ id: 'msg_1', model: 'm', content, inputTokens: 1, outputTokens: 2 });
      assert.deepEqual(reassemble(events.map(encodeEvent).join('')).content, expected);
    }),
  );
});

test('streamed and whole answers carry the same content', async (t) => {
  const api = await startFor(t, () => ({ content: CONTENT }));
  const streamed = reassemble(await (await post(api, STREAMED)).text());
  const whole = (await (await post(api, REQUEST)).json()) as { content: unknown; stop_reason: unknown };
  assert.deepEqual(streamed, { content: CONTENT, stopReason: 'tool_use' });
  assert.deepEqual({ content: whole.content, stopReason: whole.stop_reason }, streamed);
});

test('requests are recorded as they came in', async (t) => {
  const api = await startFor(t, () => ({ content: [] }));
  await (await post(api, STREAMED, { headers: { 'x-claude-code-session-id': 'abc' } })).text();
  const counted = await fetch(`${api.url}/v1/messages/count_tokens`, {
    method: 'POST',
    body: JSON.stringify(REQUEST),
  });
  assert.ok(((await counted.json()) as { input_tokens: number }).input_tokens > 0);
  assert.equal((await fetch(api.url, { method: 'HEAD' })).status, 200);
  assert.equal((await fetch(`${api.url}/v1/elsewhere`)).status, 404);
  assert.deepEqual(
    api.requests.map(({ method, path }) => `${method} ${path}`),
    ['POST /v1/messages', 'POST /v1/messages/count_tokens', 'HEAD /', 'GET /v1/elsewhere'],
  );
  assert.equal(api.requests[0]?.headers['x-claude-code-session-id'], 'abc');
  assert.deepEqual(api.messagesRequests(), [STREAMED]);
});

test('a body that is not JSON is an invalid request', async (t) => {
  const api = await startFor(t, () => ({ content: [] }));
  const response = await fetch(`${api.url}/v1/messages`, { method: 'POST', body: '{' });
  assert.equal(response.status, 400);
});

test('errors come with their status and headers', async (t) => {
  const answers: Extract<Answer, { status: number }>[] = [
    { status: 429, errorType: 'rate_limit_error', message: 'slow', headers: { 'retry-after': '7' } },
    { status: 529, errorType: 'overloaded_error', message: 'busy', headers: { 'x-should-retry': 'true' } },
    { status: 500, errorType: 'api_error', message: 'oh' },
  ];
  let round = 0;
  const api = await startFor(t, () => answers[round++] ?? { content: [] });
  for (const answer of answers) {
    const response = await post(api, STREAMED);
    assert.equal(response.status, answer.status);
    for (const [name, value] of Object.entries(answer.headers ?? {})) {
      assert.equal(response.headers.get(name), value);
    }
    const error = { type: answer.errorType, message: answer.message };
    assert.deepEqual(await response.json(), { type: 'error', error });
  }
});

test('headers that are kept back never come', async (t) => {
  const api = await startFor(t, () => ({ content: CONTENT, delivery: { holdHeaders: true } }));
  await assert.rejects(post(api, STREAMED, { signal: AbortSignal.timeout(200) }), { name: 'TimeoutError' });
  await api.requests[0]?.ended;
});

/** The events that arrive before the connection breaks or `enough` have come. */
async function eventsUntil(response: Response, enough = Infinity): Promise<string[]> {
  const decoder = new TextDecoder();
  let received = '';
  const events = () => received.split('\n\n').slice(0, -1);
  for await (const chunk of response.body ?? []) {
    received += decoder.decode(chunk, { stream: true });
    if (events().length >= enough) break;
  }
  return events();
}

test('a stalled stream sends its first events and then pings at most', async (t) => {
  const delivery: Delivery = { stallAfterEvents: 3, pingEveryMs: 5 };
  const api = await startFor(t, () => ({ content: CONTENT, delivery }));
  const events = await eventsUntil(await post(api, STREAMED), 6);
  assert.deepEqual(
    events.map((event) => event.split('\n')[0]),
    ['message_start', 'ping', 'content_block_start', 'ping', 'ping', 'ping'].map((name) => `event: ${name}`),
  );
  await api.requests[0]?.ended;
});

test('a silent stall ends when the client gives up', async (t) => {
  const api = await startFor(t, () => ({ content: CONTENT, delivery: { stallAfterEvents: 2 } }));
  const client = new AbortController();
  const response = await post(api, STREAMED, { signal: client.signal });
  // From here on: the headers may take longer.
  setTimeout(() => client.abort(), 200);
  await assert.rejects(response.text(), { name: 'AbortError' });
  await api.requests[0]?.ended;
});

test('a cut stream breaks in the middle of an event', async (t) => {
  const api = await startFor(t, () => ({ content: CONTENT, delivery: { cutAfterEvents: 4 } }));
  const response = await post(api, STREAMED);
  let received = '';
  await assert.rejects(async () => {
    for await (const chunk of response.body ?? []) received += Buffer.from(chunk).toString();
  });
  const pieces = received.split('\n\n');
  assert.equal(pieces.length, 5);
  assert.match(pieces[4] ?? '', /^event: content_block_delta/);
});

test('a dripping stream hands out events while it is still going on', async (t) => {
  const api = await startFor(t, () => ({ content: CONTENT, delivery: { dripMs: 50 } }));
  const response = await post(api, STREAMED);
  let ended = false;
  api.requests[0]?.ended.then(() => {
    ended = true;
  });
  const stream = response.body?.getReader();
  const first = Buffer.from((await stream?.read())?.value ?? []).toString();
  assert.equal(ended, false);
  let rest = '';
  for (let part = await stream?.read(); part && !part.done; part = await stream?.read()) {
    rest += Buffer.from(part.value).toString();
  }
  assert.deepEqual(reassemble(first + rest), { content: CONTENT, stopReason: 'tool_use' });
});

const DECOMPRESS = { gzip: gunzipSync, br: brotliDecompressSync, zstd: zstdDecompressSync };

for (const encoding of ['gzip', 'br', 'zstd'] as const) {
  test(`a stream compressed with ${encoding} says so and holds the same events`, async (t) => {
    const delivery: Delivery = { encoding, headers: { 'request-id': 'req_1' } };
    const api = await startFor(t, () => ({ content: CONTENT, delivery }));
    // fetch would decompress by itself.
    const { promise, resolve, reject } = Promise.withResolvers<{ headers: object; body: Buffer }>();
    const request = httpRequest(`${api.url}/v1/messages`, { method: 'POST' }, (response) => {
      buffer(response).then((body) => resolve({ headers: response.headers, body }), reject);
    });
    request.end(JSON.stringify(STREAMED));
    const { headers, body } = await promise;
    assert.partialDeepStrictEqual(headers, { 'content-encoding': encoding, 'request-id': 'req_1' });
    assert.deepEqual(reassemble(DECOMPRESS[encoding](body).toString()).content, CONTENT);
  });
}

test('a client that takes it for a proxy is refused and recorded', async (t) => {
  const api = await startFor(t, () => ({ content: [] }));
  const { promise, resolve } = Promise.withResolvers<number | undefined>();
  httpRequest(api.url, { method: 'CONNECT', path: 'example.com:443' })
    .on('connect', (response) => resolve(response.statusCode))
    .end();
  assert.equal(await promise, 403);
  assert.deepEqual(
    api.requests.map(({ method, path }) => `${method} ${path}`),
    ['CONNECT example.com:443'],
  );
});
