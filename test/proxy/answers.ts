// SPDX-License-Identifier: Apache-2.0
import type { TurnApi } from '../../daemon/proxy/routes.ts';
import { encodeEvent, type Message, messageEvents, wholeMessage } from '../clients/anthropic-events.ts';

/** One API as the tests use it: how a request asks, and what a good answer is. */
export interface ApiCase {
  readonly api: TurnApi;
  readonly path: string;
  /** The body of a request. */
  readonly ask: (stream: boolean, text?: string) => string;
  /** The whole stream, event by event. */
  readonly events: readonly string[];
  /** The answer that is not streamed. */
  readonly whole: string;
  readonly usage: { readonly inputTokens: number; readonly outputTokens: number };
  /** What keeps the stream alive. */
  readonly ping: string;
  readonly headers: Readonly<Record<string, string>>;
}

const TEXT = 'Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich 🥊';
const MODEL = { anthropic: 'claude-sonnet-4-20250514', openai: 'gpt-5-2025-08-07' };
const USAGE = { inputTokens: 321, outputTokens: 45 };

const message: Message = {
  id: 'msg_1',
  model: MODEL.anthropic,
  content: [
    { type: 'text', text: TEXT },
    { type: 'tool_use', id: 'toolu_1', name: 'Bash', input: { command: 'echo "\n\n"' } },
  ],
  ...USAGE,
};

const messages: ApiCase = {
  api: 'messages',
  path: '/v1/messages',
  ask: (stream, text = 'hello') =>
    JSON.stringify({
      model: MODEL.anthropic,
      max_tokens: 100,
      stream,
      messages: [{ role: 'user', content: text }],
    }),
  events: messageEvents(message).map(encodeEvent),
  whole: JSON.stringify(wholeMessage(message)),
  usage: USAGE,
  ping: 'event: ping\ndata: {"type": "ping"}\n\n',
  headers: { 'x-api-key': 'sk-test', 'anthropic-version': '2023-06-01' },
};

const chunk = (delta: object, finish: string | null, usage: object | null) =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1,
    model: MODEL.openai,
    choices: usage === null ? [{ index: 0, delta, finish_reason: finish }] : [],
    usage,
  })}\n\n`;
const chatUsage = {
  prompt_tokens: USAGE.inputTokens,
  completion_tokens: USAGE.outputTokens,
  total_tokens: 366,
};

const chat: ApiCase = {
  api: 'chat',
  path: '/v1/chat/completions',
  ask: (stream, text = 'hello') =>
    JSON.stringify({ model: MODEL.openai, stream, messages: [{ role: 'user', content: text }] }),
  events: [
    chunk({ role: 'assistant', content: '' }, null, null),
    ...[...TEXT].map((content) => chunk({ content }, null, null)),
    chunk({}, 'stop', null),
    chunk({}, null, chatUsage),
    'data: [DONE]\n\n',
  ],
  whole: JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: MODEL.openai,
    choices: [
      { index: 0, message: { role: 'assistant', content: TEXT, refusal: null }, finish_reason: 'stop' },
    ],
    usage: chatUsage,
  }),
  usage: USAGE,
  ping: ': keep-alive\n\n',
  headers: { authorization: 'Bearer sk-test' },
};

const output = [
  {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    status: 'completed',
    content: [{ type: 'output_text', text: TEXT, annotations: [] }],
  },
];
const completed = {
  id: 'resp_1',
  object: 'response',
  created_at: 1,
  status: 'completed',
  model: MODEL.openai,
  output,
  usage: { input_tokens: USAGE.inputTokens, output_tokens: USAGE.outputTokens, total_tokens: 366 },
};
const typed = (event: { type: string }, index: number) =>
  `event: ${event.type}\ndata: ${JSON.stringify({ ...event, sequence_number: index })}\n\n`;

const responses: ApiCase = {
  api: 'responses',
  path: '/v1/responses',
  ask: (stream, text = 'hello') => JSON.stringify({ model: MODEL.openai, stream, store: false, input: text }),
  events: [
    { type: 'response.created', response: { ...completed, status: 'in_progress', output: [], usage: null } },
    {
      type: 'response.output_item.added',
      output_index: 0,
      item: { ...output[0], content: [], status: 'in_progress' },
    },
    {
      type: 'response.content_part.added',
      output_index: 0,
      content_index: 0,
      item_id: 'msg_1',
      part: { type: 'output_text', text: '', annotations: [] },
    },
    ...[...TEXT].map((delta) => ({
      type: 'response.output_text.delta',
      item_id: 'msg_1',
      output_index: 0,
      content_index: 0,
      delta,
    })),
    { type: 'response.completed', response: completed },
  ].map(typed),
  whole: JSON.stringify(completed),
  usage: USAGE,
  ping: ': keep-alive\n\n',
  headers: { authorization: 'Bearer sk-test' },
};

export const API_CASES: readonly ApiCase[] = [messages, chat, responses];
export const MESSAGES = messages;
export const CHAT = chat;
export const RESPONSES = responses;
