// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TurnApi } from '../../daemon/proxy/routes.ts';
import { runEndOf } from '../../daemon/proxy/run-end.ts';
import { StreamObserver } from '../../daemon/proxy/stream-observer.ts';
import { API_CASES } from '../proxy/answers.ts';

const chat = (reason: unknown) => ({ choices: [{ index: 0, delta: {}, finish_reason: reason }] });
const responses = (...types: string[]) => ({ status: 'completed', output: types.map((type) => ({ type })) });

const table: readonly (readonly [TurnApi, unknown, boolean | undefined])[] = [
  ['messages', { stop_reason: 'end_turn' }, true],
  ['messages', { stop_reason: 'refusal' }, true],
  ['messages', { stop_reason: 'tool_use' }, false],
  ['messages', { stop_reason: 'pause_turn' }, false],
  ['messages', { stop_reason: 'max_tokens' }, undefined],
  ['messages', { type: 'message_delta', delta: { stop_reason: 'tool_use' } }, false],
  ['messages', { type: 'message_start', message: { stop_reason: null } }, undefined],
  ['chat', chat('stop'), true],
  ['chat', chat('tool_calls'), false],
  ['chat', chat('length'), undefined],
  ['chat', chat(null), undefined],
  ['chat', { choices: [] }, undefined],
  ['responses', responses('message'), true],
  ['responses', responses('reasoning', 'web_search_call', 'message'), true],
  ['responses', responses('message', 'function_call'), false],
  ['responses', responses('custom_tool_call'), false],
  ['responses', { response: responses('function_call') }, false],
  ['responses', { status: 'incomplete', output: [] }, undefined],
  ['responses', { status: 'queued' }, undefined],
  ['messages', null, undefined],
  ['messages', 'text', undefined],
];

for (const [api, parsed, ends] of table) {
  test(`${api}: ${JSON.stringify(parsed)} ${ends === undefined ? 'does not tell' : ends ? 'ends' : 'goes on'}`, () => {
    assert.equal(runEndOf(api, parsed), ends);
  });
}

for (const { api, events, whole } of API_CASES) {
  test(`${api}: a stream says the same as the whole answer`, () => {
    const observer = new StreamObserver(api, () => {});
    for (const event of events) observer.feed(Buffer.from(event));
    const ends = runEndOf(api, JSON.parse(whole));
    assert.equal(typeof ends, 'boolean');
    assert.equal(observer.endsRun, ends);
  });
}
