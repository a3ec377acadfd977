// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import type { IncomingHttpHeaders } from 'node:http';
import { suite, test } from 'node:test';
import { identify, modelClassOf, WANTED } from '../../daemon/proxy/identify.ts';
import { JsonScan } from '../../daemon/proxy/json-scan.ts';
import type { TurnApi } from '../../daemon/proxy/routes.ts';

function of(
  api: TurnApi,
  body: unknown,
  headers: IncomingHttpHeaders = {},
  background: readonly string[] = [],
) {
  const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  const scan = new JsonScan(WANTED);
  scan.scan(bytes, bytes.length);
  return identify(api, headers, { bytes, scan }, (model) => background.includes(model));
}

suite('the session', () => {
  const user = (id: string) => ({ metadata: { user_id: id } });
  const cases: [string, TurnApi, object, IncomingHttpHeaders, string | null][] = [
    [
      'Claude Code’s header',
      'messages',
      user('{"session_id":"b"}'),
      { 'x-claude-code-session-id': 'a' },
      'a',
    ],
    ['metadata with JSON', 'messages', user('{"device_id":"d","session_id":"b"}'), {}, 'b'],
    ['metadata of older versions', 'messages', user('user_0a_account__session_0f-1e'), {}, '0f-1e'],
    ['metadata that names none', 'messages', user('somebody'), {}, null],
    ['metadata that is broken', 'messages', user('{"session_id":'), {}, null],
    ['Codex', 'responses', { prompt_cache_key: 'c' }, { 'session-id': 's', 'thread-id': 't' }, 's'],
    ['an older Codex', 'responses', { prompt_cache_key: 'c' }, { session_id: 's' }, 's'],
    ['Codex by its cache key', 'responses', { prompt_cache_key: 'c' }, {}, 'c'],
    ['metadata before Codex’s header', 'messages', user('{"session_id":"b"}'), { session_id: 's' }, 'b'],
    ['our header before metadata', 'messages', user('{"session_id":"b"}'), { 'x-agentrm-session': 'o' }, 'o'],
    ['nobody', 'chat', {}, {}, null],
  ];
  for (const [name, api, body, headers, expected] of cases) {
    test(name, () => assert.equal(of(api, body, headers).session, expected));
  }

  test('a name is cut, whatever its length', () => {
    assert.equal(of('messages', {}, { 'x-claude-code-session-id': 'x'.repeat(10_000) }).session?.length, 128);
  });
});

test('the class', () => {
  assert.equal(of('messages', {}).class, 'interactive');
  assert.deepEqual(
    [of('messages', {}, { 'x-claude-code-agent-id': 'a1' })].map(({ class: of, agent }) => [of, agent]),
    [['subagent', 'a1']],
  );
  assert.equal(of('messages', { model: 'haiku' }, {}, ['haiku']).class, 'background');
  assert.equal(
    of('messages', { model: 'haiku' }, { 'x-claude-code-agent-id': 'a1' }, ['haiku']).class,
    'background',
  );
  assert.equal(of('messages', {}, { 'x-agentrm-class': 'background' }).class, 'background');
  // A class is no permission to be served before others.
  assert.equal(
    of('messages', {}, { 'x-agentrm-class': 'interactive', 'x-claude-code-agent-id': 'a1' }).class,
    'subagent',
  );
});

test('what may be sent twice', () => {
  assert.equal(of('messages', {}).retryable, true);
  assert.equal(of('chat', { store: true }).retryable, false);
  assert.equal(of('chat', { store: false }).retryable, true);
  assert.equal(of('responses', {}).retryable, false, 'responses are stored unless told otherwise');
  assert.equal(of('responses', { store: false }).retryable, true);
  assert.equal(of('responses', { store: false, background: true }).retryable, false);
});

test('streams and timeouts', () => {
  assert.equal(of('chat', { stream: true }).streaming, true);
  assert.equal(of('chat', { stream: 'true' }).streaming, false);
  assert.equal(of('chat', {}, { 'x-stainless-timeout': '600' }).clientTimeoutMs, 600_000);
  for (const bad of ['-1', '0', 'never', '1e9', '']) {
    assert.equal(of('chat', {}, { 'x-stainless-timeout': bad }).clientTimeoutMs, null, bad);
  }
});

suite('whether a run begins', () => {
  const result = { type: 'tool_result', tool_use_id: 't', content: 'x' };
  const text = { type: 'text', text: 'do this' };
  const reminder = { type: 'text', text: '<system-reminder>\nremember</system-reminder>' };
  const cases: [string, TurnApi, object, boolean][] = [
    ['text', 'messages', { messages: [{ role: 'user', content: 'hi' }] }, true],
    ['blocks of text', 'messages', { messages: [{ role: 'user', content: [text] }] }, true],
    ['only results', 'messages', { messages: [{ role: 'user', content: [result, result] }] }, false],
    [
      'results and what the agent adds',
      'messages',
      { messages: [{ role: 'user', content: [result, reminder] }] },
      false,
    ],
    [
      'results and a word of the user',
      'messages',
      { messages: [{ role: 'user', content: [result, text] }] },
      true,
    ],
    [
      'an image',
      'messages',
      { messages: [{ role: 'user', content: [{ type: 'image', source: {} }] }] },
      true,
    ],
    [
      'a system message at the end',
      'messages',
      {
        messages: [
          { role: 'user', content: [result] },
          { role: 'system', content: 'x' },
        ],
      },
      false,
    ],
    [
      'a prefilled answer',
      'messages',
      {
        messages: [
          { role: 'user', content: 'hi' },
          { role: 'assistant', content: '{' },
        ],
      },
      true,
    ],
    ['chat: a user', 'chat', { messages: [{ role: 'user', content: 'hi' }] }, true],
    [
      'chat: a tool',
      'chat',
      { messages: [{ role: 'user', content: 'hi' }, { role: 'assistant' }, { role: 'tool', content: 'x' }] },
      false,
    ],
    ['responses: a text', 'responses', { input: 'hi' }, true],
    [
      'responses: a message',
      'responses',
      { input: [{ role: 'user', content: [{ type: 'input_text', text: 'hi' }] }] },
      true,
    ],
    [
      'responses: an output',
      'responses',
      {
        input: [
          { role: 'user', content: 'hi' },
          { type: 'function_call_output', output: 'x' },
        ],
      },
      false,
    ],
    ['nothing', 'messages', {}, false],
    ['messages that are none', 'messages', { messages: [1, null, 'x', { role: 7 }] }, false],
  ];
  for (const [name, api, body, expected] of cases) {
    test(name, () => assert.equal(of(api, body).runStart, expected));
  }

  test('a result of several MB is still a result, and an image that somebody sent is not', () => {
    const large = 'x'.repeat(3 * 2 ** 20);
    const message = (block: object) => ({ messages: [{ role: 'user', content: [block] }] });
    assert.equal(of('messages', message({ ...result, content: large })).runStart, false);
    assert.equal(of('messages', message({ type: 'image', source: { data: large } })).runStart, true);
  });
});

test('models that share a limit', () => {
  const classes = {
    'claude-sonnet-4-20250514': 'claude-sonnet-4',
    'claude-opus-4-1-20250805': 'claude-opus-4-1',
    'claude-3-5-haiku-latest': 'claude-3-5-haiku',
    'claude-sonnet-4-5[1m]': 'claude-sonnet-4-5',
    'gpt-5-2025-08-07': 'gpt-5',
    'GPT-5': 'gpt-5',
    '': 'unknown',
  };
  for (const [model, expected] of Object.entries(classes)) assert.equal(modelClassOf(model), expected);
});
