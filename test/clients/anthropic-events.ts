// SPDX-License-Identifier: Apache-2.0

/** Content of an answer of the Messages API, as far as the tests script it. */
export type Block =
  | { type: 'text'; text: string }
  | { type: 'tool_use'; id: string; name: string; input: Record<string, unknown> };

/** One answer of the model. `inputTokens` and `outputTokens` are what `usage` will claim. */
export interface Message {
  id: string;
  model: string;
  content: Block[];
  inputTokens: number;
  outputTokens: number;
}

/** One server-sent event: its name and the JSON that follows `data:`. */
export interface StreamEvent {
  event: string;
  data: unknown;
}

// Clients must put deltas together again, so no delta may hold a whole value.
const DELTA_CHARACTERS = 12;

function pieces(text: string): string[] {
  const found: string[] = [];
  const points = [...text];
  for (let at = 0; at < points.length; at += DELTA_CHARACTERS) {
    found.push(points.slice(at, at + DELTA_CHARACTERS).join(''));
  }
  return found;
}

function stopReason(message: Message): string {
  return message.content.some((block) => block.type === 'tool_use') ? 'tool_use' : 'end_turn';
}

function usage(message: Message, outputTokens: number): Record<string, number> {
  return {
    input_tokens: message.inputTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    output_tokens: outputTokens,
  };
}

/** The answer as the body of a request without `stream`. */
export function wholeMessage(message: Message): unknown {
  return {
    id: message.id,
    type: 'message',
    role: 'assistant',
    model: message.model,
    content: message.content,
    stop_reason: stopReason(message),
    stop_sequence: null,
    usage: usage(message, message.outputTokens),
  };
}

function blockEvents(block: Block, index: number): StreamEvent[] {
  const opening = block.type === 'text' ? { ...block, text: '' } : { ...block, input: {} };
  const deltas =
    block.type === 'text'
      ? pieces(block.text).map((text) => ({ type: 'text_delta', text }))
      : pieces(JSON.stringify(block.input)).map((json) => ({ type: 'input_json_delta', partial_json: json }));
  return [
    { event: 'content_block_start', data: { type: 'content_block_start', index, content_block: opening } },
    ...deltas.map((delta) => ({
      event: 'content_block_delta',
      data: { type: 'content_block_delta', index, delta },
    })),
    { event: 'content_block_stop', data: { type: 'content_block_stop', index } },
  ];
}

/** The answer as the events of a streamed response, in the order in which the API sends them. */
export function messageEvents(message: Message): StreamEvent[] {
  const start = {
    id: message.id,
    type: 'message',
    role: 'assistant',
    model: message.model,
    content: [],
    stop_reason: null,
    stop_sequence: null,
    // Output is counted up from here; the total comes with message_delta.
    usage: usage(message, 1),
  };
  return [
    { event: 'message_start', data: { type: 'message_start', message: start } },
    PING,
    ...message.content.flatMap(blockEvents),
    {
      event: 'message_delta',
      data: {
        type: 'message_delta',
        delta: { stop_reason: stopReason(message), stop_sequence: null },
        usage: { output_tokens: message.outputTokens },
      },
    },
    { event: 'message_stop', data: { type: 'message_stop' } },
  ];
}

/** Keep-alive that the API mixes into streams. */
export const PING: StreamEvent = { event: 'ping', data: { type: 'ping' } };

/** An event as its bytes on the wire. */
export function encodeEvent(event: StreamEvent): string {
  return `event: ${event.event}\ndata: ${JSON.stringify(event.data)}\n\n`;
}
