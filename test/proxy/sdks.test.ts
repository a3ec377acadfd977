// SPDX-License-Identifier: Apache-2.0
// The official SDKs through the proxy: what a program gets is what it gets from a direct connection.
import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { CHAT, MESSAGES, RESPONSES } from './answers.ts';
import { held, startProxy } from './lab.ts';
import { type Answer, JSON_HEADERS, type Received, STREAM_HEADERS, StandIn } from './upstream.ts';

/** Answers each API as it was asked; a status makes it an error. */
function good({ target, body }: Received): Answer {
  const [path] = target.split('?');
  const api = [MESSAGES, CHAT, RESPONSES].find((each) => each.path === path);
  if (api === undefined) return { steps: [JSON.stringify({ input_tokens: 7 })] };
  const { stream } = JSON.parse(body.toString()) as { stream?: boolean };
  return stream ? { headers: STREAM_HEADERS, steps: api.events } : { steps: [api.whole] };
}

interface Sides<Client> {
  readonly direct: Client;
  readonly proxied: Client;
  readonly upstream: StandIn;
  readonly lab: Awaited<ReturnType<typeof startProxy>>;
}

async function sides<Client>(t: TestContext, make: (url: string) => Client): Promise<Sides<Client>> {
  const upstream = await StandIn.start(t, good);
  const lab = await startProxy(t, upstream);
  return { direct: make(upstream.url), proxied: make(lab.url), upstream, lab };
}

const anthropic = (baseURL: string) => new Anthropic({ baseURL, apiKey: 'sk-test', timeout: 60_000 });
const openai = (url: string) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'sk-test', timeout: 60_000 });

const message = {
  model: 'claude-sonnet-4-20250514',
  max_tokens: 100,
  messages: [{ role: 'user' as const, content: 'hi' }],
};
const chat = { model: 'gpt-5', messages: [{ role: 'user' as const, content: 'hi' }] };

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

/** What a call throws, as far as a program can tell. */
async function thrown(call: Promise<unknown>) {
  try {
    await call;
  } catch (error) {
    const { name, status, error: body } = error as { name: string; status?: number; error?: unknown };
    return { name: (error as Error).constructor.name || name, status, body };
  }
  return assert.fail('nothing was thrown');
}

/** What a request is, less what is the connection's own. */
function request({ method, target, headers, body }: Received) {
  const { host: _, connection: __, 'accept-encoding': ___, ...rest } = headers;
  return { method, target, headers: rest, body: body.toString() };
}

suite('@anthropic-ai/sdk', () => {
  test('messages, streamed and whole, and counted', async (t) => {
    const { direct, proxied, upstream, lab } = await sides(t, anthropic);
    const calls = [
      (client: Anthropic) => client.messages.create(message),
      async (client: Anthropic) => all(await client.messages.create({ ...message, stream: true })),
      (client: Anthropic) => client.messages.stream(message).finalMessage(),
      (client: Anthropic) =>
        client.messages.countTokens({ model: message.model, messages: message.messages }),
    ];
    for (const call of calls) assert.deepEqual(await call(proxied), await call(direct));
    const requests = upstream.received.map(request);
    for (let at = 0; at < requests.length; at += 2) assert.deepEqual(requests[at], requests[at + 1]);
    assert.equal(held(lab), 0);
  });

  test('errors keep their class, status and body', async (t) => {
    const { direct, proxied, upstream } = await sides(t, anthropic);
    for (const [status, type] of [
      [400, 'invalid_request_error'],
      [401, 'authentication_error'],
      [404, 'not_found_error'],
    ] as const) {
      const body = JSON.stringify({ type: 'error', error: { type, message: 'no' } });
      upstream.script = () => ({ status, headers: JSON_HEADERS, steps: [body] });
      const calls = [direct, proxied].map((client) => thrown(client.messages.create(message)));
      const [expected, seen] = await Promise.all(calls);
      assert.deepEqual(seen, expected);
    }
  });

  test('our own errors are errors of its API', async (t) => {
    const upstream = await StandIn.start(t, () => ({
      headers: STREAM_HEADERS,
      steps: [...MESSAGES.events.slice(0, 4), 'cut'],
    }));
    const lab = await startProxy(t, upstream, { settings: { maxBodyBytes: 1000 } });
    const client = anthropic(lab.url);
    const cut = await thrown(client.messages.stream(message).finalMessage());
    assert.equal(cut.name, 'APIError');
    assert.equal((cut.body as { error: { type: string } }).error.type, 'api_error');
    const large = { ...message, messages: [{ role: 'user' as const, content: 'x'.repeat(2000) }] };
    const { status, body } = await thrown(client.messages.create(large));
    assert.equal(status, 413);
    assert.equal((body as { error: { type: string } }).error.type, 'request_too_large');
  });

  test('retries of proxy and SDK do not multiply', async (t) => {
    const upstream = await StandIn.start(t, () => ({ status: 500, headers: JSON_HEADERS, steps: ['{}'] }));
    const lab = await startProxy(t, upstream, { scheduler: { retry: { backoffMs: 1, backoffMostMs: 2 } } });
    const { status } = await thrown(anthropic(lab.url).messages.create(message));
    assert.equal(status, 500);
    assert.equal(upstream.received.length, 3, 'one attempt and two retries, for both of them together');
  });

  test('an abort reaches the upstream', async (t) => {
    const upstream = await StandIn.start(t, () => ({
      headers: STREAM_HEADERS,
      steps: [String(MESSAGES.events[0]), 'stall'],
    }));
    const lab = await startProxy(t, upstream);
    const stream = await anthropic(lab.url).messages.create({ ...message, stream: true });
    for await (const _ of stream) break;
    assert.equal(await upstream.received[0]?.over, false);
  });
});

suite('openai', () => {
  test('chat and responses, streamed and whole, and models', async (t) => {
    const { direct, proxied, upstream, lab } = await sides(t, openai);
    upstream.script = (received) =>
      received.target === '/v1/models' ? { steps: ['{"object":"list","data":[]}'] } : good(received);
    const calls = [
      (client: OpenAI) => client.chat.completions.create(chat),
      async (client: OpenAI) => all(await client.chat.completions.create({ ...chat, stream: true })),
      (client: OpenAI) => client.responses.create({ model: 'gpt-5', input: 'hi', store: false }),
      async (client: OpenAI) =>
        all(await client.responses.create({ model: 'gpt-5', input: 'hi', stream: true })),
      async (client: OpenAI) => (await client.models.list()).data,
    ];
    for (const call of calls) assert.deepEqual(await call(proxied), await call(direct));
    const requests = upstream.received.map(request);
    for (let at = 0; at < requests.length; at += 2) assert.deepEqual(requests[at], requests[at + 1]);
    assert.equal(held(lab), 0);
  });

  for (const api of [CHAT, RESPONSES]) {
    test(`${api.path}: a cut stream is an error, and not an answer that looks whole`, async (t) => {
      const steps = [...api.events.slice(0, 4), 'cut'] as const;
      const upstream = await StandIn.start(t, () => ({ headers: STREAM_HEADERS, steps }));
      const lab = await startProxy(t, upstream);
      const client = openai(lab.url);
      const call = async () =>
        api === CHAT
          ? all<unknown>(await client.chat.completions.create({ ...chat, stream: true }))
          : all<unknown>(await client.responses.create({ model: 'gpt-5', input: 'hi', stream: true }));
      const { name } = await thrown(call());
      assert.equal(name, 'APIError');
    });
  }
});
