// SPDX-License-Identifier: Apache-2.0
// How a request's body is read, over real connections: at once if it came along with the head, else in pieces.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createServer } from '../../daemon/http.ts';
import { BodyBudget, type BodyFailure, type RequestBody, readBody } from '../../daemon/proxy/request-body.ts';

const MAX_BYTES = 200_000;
const SMALL = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hello' }] });
const LARGE = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'word '.repeat(20_000) }] });

/** A server that reads bodies, and a client that keeps one connection to it. */
async function lab(t: TestContext) {
  const budget = new BodyBudget(MAX_BYTES);
  const options = { maxBytes: MAX_BYTES, budget, wanted: new Set(['model']) };
  const server = createServer((request, response) => {
    request.on('error', () => {});
    readBody(request, options).then((body) => {
      response.end();
      response.on('close', () => request.resume());
      server.emit('body', body);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
  t.after(() => {
    client.destroy();
    server.closeAllConnections();
    server.close();
  });
  return {
    budget,
    client,
    server,
    /** Writes each part once what was written before has been read. */
    async send(headers: string, ...parts: string[]): Promise<RequestBody | BodyFailure> {
      const read: Promise<[RequestBody | BodyFailure]> = once(server, 'body') as never;
      const came: Promise<[IncomingMessage]> = once(server, 'request') as never;
      const [first = '', ...rest] = parts;
      client.write(`POST /v1/messages HTTP/1.1\r\nhost: x\r\n${headers}\r\n\r\n${first}`);
      const [request] = await came;
      for (const part of rest) {
        client.write(part);
        if (part !== rest.at(-1)) await once(request, 'data');
      }
      return (await read)[0];
    },
  };
}

/** By another way than the one that is tested. */
function hashOf(body: string): string {
  return createHash('sha256').update('POST /v1/messages\n').update(body).digest('base64url');
}

function told(body: RequestBody | BodyFailure) {
  if (typeof body === 'string') return body;
  const model = body.scan.member('model');
  return { text: body.bytes.toString(), model: model && body.bytes.toString('utf8', model.start, model.end) };
}

test('a body is the same in one piece and in several, with and without a length, and so is its hash', async (t) => {
  const { send, budget } = await lab(t);
  let held = 0;
  for (const body of [SMALL, LARGE]) {
    const length = `content-length: ${body.length}`;
    const chunk = `${body.length.toString(16)}\r\n${body}\r\n`;
    for (const sent of [
      [length, body],
      [length, '', body],
      [length, body.slice(0, 20), body.slice(20, 40), body.slice(40)],
      ['transfer-encoding: chunked', `${chunk}0\r\n\r\n`],
      ['transfer-encoding: chunked', '', chunk, '0\r\n\r\n'],
    ] as const) {
      const [headers, ...parts] = sent;
      const read = await send(headers, ...parts);
      assert.deepEqual(told(read), { text: body, model: '"m"' });
      held += body.length;
      assert.equal(budget.heldBytes, held, 'it stays taken');
      budget.give(body.length);
      held -= body.length;
      assert.ok(typeof read !== 'string');
      assert.equal(read.hash(), hashOf(body));
      assert.equal(read.hash(), hashOf(body), 'asked again');
    }
  }
  assert.deepEqual(told(await send('content-length: 0')), { text: '', model: undefined });
});

test('what does not fit is not taken, however it comes', async (t) => {
  const { send, budget } = await lab(t);
  budget.maxBytes = SMALL.length - 1;
  const chunk = `${SMALL.length.toString(16)}\r\n${SMALL}\r\n0\r\n\r\n`;
  assert.equal(await send(`content-length: ${SMALL.length}`, SMALL), 'no-room');
  assert.equal(await send('transfer-encoding: chunked', chunk), 'no-room');
  assert.equal(budget.heldBytes, 0);
  assert.equal(await send(`content-length: ${MAX_BYTES + 1}`), 'too-large');
});

test('a client that goes before its body has come is told of as gone', async (t) => {
  const { send, budget, client, server } = await lab(t);
  const sent = send(`content-length: ${SMALL.length}`, SMALL.slice(0, 10));
  await once(server, 'request');
  client.destroy();
  assert.equal(await sent, 'gone');
  assert.equal(budget.heldBytes, 0);
});
