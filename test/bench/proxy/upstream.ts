// SPDX-License-Identifier: Apache-2.0
// The model API of the proxy's benchmark, in a process of its own: prints its port. The model says what it does:
// `now` answers at once, `later-MS` after a time, `hold` begins a stream and never ends it.
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const usage = { prompt_tokens: 10, completion_tokens: 20, total_tokens: 30 };
const choice = { index: 0, message: { role: 'assistant', content: 'x'.repeat(400) }, finish_reason: 'stop' };
const whole = JSON.stringify({
  id: 'c',
  object: 'chat.completion',
  created: 1,
  model: 'm',
  choices: [choice],
  usage,
});
const delta = { index: 0, delta: { content: 'word ' }, finish_reason: null };
const event = `data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [delta] })}\n\n`;
/** As many words as come in one go. */
const EVENTS = 20;

function answer(body: string, response: ServerResponse): void {
  if (!body.includes('"stream":true')) {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': whole.length });
    response.end(whole);
    return;
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.write(event);
  if (body.includes('"model":"hold"')) return;
  for (let at = 1; at < EVENTS; at += 1) response.write(event);
  response.end('data: [DONE]\n\n');
}

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    // The model is named first; the rest of a large body is of no interest.
    const start = chunks[0]?.toString('latin1', 0, 100) ?? '';
    const delayMs = Number(/"model":"later-(\d+)"/.exec(start)?.[1] ?? 0);
    if (delayMs > 0) setTimeout(() => answer(start, response), delayMs);
    else answer(start, response);
  });
});
server.keepAliveTimeout = 600_000;
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
