// SPDX-License-Identifier: Apache-2.0
// The model API of the proxy's benchmark, in a process of its own: prints its port. The model says what it does:
// `now` answers at once, `later-MS` after a time, `hold` begins a stream and never ends it. On plain sockets with
// answers made beforehand: it shares the machine with what is measured, and should take as little of it as can be.
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { MessageReader } from './http.ts';

const usage = { prompt_tokens: 10, completion_tokens: 20, total_tokens: 30 };
const choice = { index: 0, message: { role: 'assistant', content: 'x'.repeat(400) }, finish_reason: 'stop' };
const about = { id: 'c', created: 1, model: 'm' };
const body = JSON.stringify({ ...about, object: 'chat.completion', choices: [choice], usage });
const whole = Buffer.from(
  `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
);
const delta = { index: 0, delta: { content: 'word ' }, finish_reason: null };
const event = `data: ${JSON.stringify({ ...about, object: 'chat.completion.chunk', choices: [delta] })}\n\n`;
const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;
const head = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n';
const begun = Buffer.from(head + chunk(event));
/** As many words as come in one go. */
const EVENTS = 20;
const rest = Buffer.from(chunk(event).repeat(EVENTS - 1) + chunk('data: [DONE]\n\n') + chunk(''));

function answer(request: Buffer, socket: Socket): void {
  // The model is named first; the rest of a large body is of no interest.
  const start = request.toString('latin1', 0, 100);
  if (!start.includes('"stream":true')) {
    const delayMs = Number(/"model":"later-(\d+)"/.exec(start)?.[1] ?? 0);
    if (delayMs > 0) setTimeout(() => socket.write(whole), delayMs);
    else socket.write(whole);
    return;
  }
  socket.write(begun);
  if (!start.includes('"model":"hold"')) socket.write(rest);
}

const server = createServer({ noDelay: true }, (socket) => {
  const reader = new MessageReader({ onEnd: (request) => answer(request, socket) });
  socket.on('data', (bytes) => reader.feed(bytes));
  socket.on('error', () => {});
});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
