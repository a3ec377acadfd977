// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { type Block, type Message, messageEvents, wholeMessage } from './anthropic-events.ts';
import { type Delivery, deliverEvents } from './delivery.ts';

/** The parts of a Messages request that scripts look at. */
export interface MessagesRequest {
  model: string;
  stream?: boolean;
  tools?: { name: string }[];
  messages: { role: string; content: string | { type: string; [key: string]: unknown }[] }[];
}

/** What the script answers to one request: content, or an error with its HTTP status. */
export type Answer =
  | { content: Block[]; delivery?: Delivery }
  | { status: number; errorType: string; message: string; headers?: Record<string, string> };

/** Decides by the request alone, so that retries and side requests cannot put it out of step. */
export type Script = (request: MessagesRequest) => Answer;

/** One request as it came in. */
export interface RecordedRequest {
  method: string;
  /** With the query. */
  path: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
  /** Settles when the answer is over: sent to its end, cut, or given up by the client. */
  ended: Promise<void>;
}

/** A running stand-in for the Anthropic API on a free port of 127.0.0.1. */
export interface ModelApi {
  url: string;
  /** Everything that was asked, in order; requests to be proxied to other hosts are `CONNECT`. */
  requests: RecordedRequest[];
  /** Parsed bodies of all POST /v1/messages so far. */
  messagesRequests(): MessagesRequest[];
  close(): Promise<void>;
}

// English text has about four characters a token; no client checks the sum.
const CHARACTERS_PER_TOKEN = 4;

function tokens(value: unknown): number {
  return Math.ceil(JSON.stringify(value).length / CHARACTERS_PER_TOKEN);
}

function sendJson(response: ServerResponse, status: number, value: unknown, headers = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(value));
}

function sendError(response: ServerResponse, answer: Extract<Answer, { status: number }>): void {
  const error = { type: answer.errorType, message: answer.message };
  sendJson(response, answer.status, { type: 'error', error }, answer.headers);
}

async function sendAnswer(response: ServerResponse, request: MessagesRequest, answer: Answer, id: string) {
  if ('status' in answer) return sendError(response, answer);
  const message: Message = {
    id,
    model: request.model,
    content: answer.content,
    inputTokens: tokens(request.messages),
    outputTokens: tokens(answer.content),
  };
  if (request.stream) return deliverEvents(response, messageEvents(message), answer.delivery ?? {});
  sendJson(response, 200, wholeMessage(message), answer.delivery?.headers);
}

function isMessages(request: { method: string; path: string }): boolean {
  return request.method === 'POST' && request.path.split('?')[0] === '/v1/messages';
}

function parseBody(body: Buffer): MessagesRequest {
  return JSON.parse(body.toString()) as MessagesRequest;
}

/** Start the stand-in; `script` decides every answer of `/v1/messages`. Listens when resolved. */
export async function startModelApi(script: Script): Promise<ModelApi> {
  const requests: RecordedRequest[] = [];

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const ended = new Promise<void>((resolve) => response.once('close', resolve));
    const body = await buffer(request);
    const method = request.method ?? '';
    const path = request.url ?? '';
    requests.push({ method, path, headers: request.headers, body, ended });
    if (method === 'HEAD') {
      response.end();
    } else if (path.startsWith('/v1/messages/count_tokens')) {
      sendJson(response, 200, { input_tokens: tokens(parseBody(body).messages) });
    } else if (isMessages({ method, path })) {
      const parsed = parseBody(body);
      await sendAnswer(response, parsed, script(parsed), `msg_${requests.length}`);
    } else {
      sendError(response, { status: 404, errorType: 'not_found_error', message: `no such path: ${path}` });
    }
  }

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      const message = String(error);
      if (response.headersSent) response.destroy();
      else sendError(response, { status: 400, errorType: 'invalid_request_error', message });
    });
  });
  // A client that takes this for its proxy wants to reach another host: recorded, never let through.
  server.on('connect', (request, socket) => {
    const { method = '', url = '', headers } = request;
    requests.push({ method, path: url, headers, body: Buffer.alloc(0), ended: Promise.resolve() });
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    messagesRequests: () => requests.filter(isMessages).map((request) => parseBody(request.body)),
    close: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
