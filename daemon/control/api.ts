// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { messageOf } from '../errors.ts';
import { createServer } from '../http.ts';
import type { EventLog } from './events.ts';
import { peerOf } from './server.ts';
import {
  type Advice,
  type DoctorReport,
  INCOMPLETE,
  type LiveCall,
  MOST_CALLS,
  type Monitor,
  type SessionRecord,
  type Status,
} from './types.ts';

/** What the API reads; `uid` undefined means that the caller may see everybody's. */
export interface ApiSources {
  readonly status: () => Status;
  readonly sessions: (uid: number | undefined) => Promise<SessionRecord[]>;
  readonly monitor: (uid: number | undefined) => Promise<Monitor>;
  readonly liveCalls: (uid: number | undefined, session: string | undefined) => LiveCall[];
  readonly finishedCalls: (
    query: { limit: number; session?: string; uid?: number },
    onIncomplete: (reason: string) => void,
  ) => AsyncIterable<string>;
  readonly advice: (uid: number | undefined) => AsyncIterable<Advice>;
  readonly events: EventLog;
  readonly doctor: () => Promise<DoctorReport>;
  readonly metrics: () => Promise<string>;
  /** Undefined: ready; otherwise why not. */
  readonly notReady: () => string | undefined;
  /** The group whose members see all, as root does. */
  readonly isOperator: (uid: number, gid: number) => boolean;
}

/** As many calls as are told without a limit. */
const DEFAULT_LIMIT = 50;

/** The read-only HTTP side of the daemon; it does not listen by itself. */
export function createApi(sources: ApiSources): Server {
  return createServer((request, response) => {
    // One answer a connection: none then waits for a next request, in silence or byte by byte.
    response.shouldKeepAlive = false;
    handle(sources, request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy();
      else sendJson(response, 500, { error: messageOf(error) });
    });
  });
}

async function handle(
  sources: ApiSources,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const url = URL.parse(request.url ?? '/', 'http://agentrm');
  if (url === null) return sendJson(response, 400, { error: 'not a path' });
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return sendJson(response, 405, { error: 'only GET is answered here' });
  }
  const peer = peerOf(request.socket as Socket);
  // A TCP listener has no peer credentials: it gets what is nobody's in particular.
  const uid = peer === undefined ? -1 : sources.isOperator(peer.uid, peer.gid) ? undefined : peer.uid;
  const session = url.searchParams.get('session') ?? undefined;
  switch (url.pathname) {
    case '/metrics':
      return sendText(response, 200, await sources.metrics(), 'text/plain; version=0.0.4; charset=utf-8');
    case '/healthz':
      return sendText(response, 200, 'ok\n');
    case '/readyz': {
      const reason = sources.notReady();
      return sendText(response, reason === undefined ? 200 : 503, `${reason ?? 'ok'}\n`);
    }
  }
  if (peer === undefined) return sendJson(response, 403, { error: 'only on the control socket' });
  switch (url.pathname) {
    case '/v1/status':
      return sendJson(response, 200, sources.status());
    case '/v1/sessions':
      return sendJson(response, 200, { sessions: await sources.sessions(uid) });
    case '/v1/monitor':
      return sendJson(response, 200, await sources.monitor(uid));
    case '/v1/doctor':
      return sendJson(response, 200, await sources.doctor());
    case '/v1/calls': {
      const limit = Number(url.searchParams.get('limit') ?? DEFAULT_LIMIT);
      if (!Number.isInteger(limit) || limit < 0 || limit > MOST_CALLS) {
        return sendJson(response, 400, { error: `limit must be a whole number from 0 to ${MOST_CALLS}` });
      }
      startLines(response, { trailer: INCOMPLETE });
      const query = {
        limit,
        ...(session === undefined ? {} : { session }),
        ...(uid === undefined ? {} : { uid }),
      };
      // Known only when some have been sent.
      const onIncomplete = (reason: string) => response.addTrailers({ [INCOMPLETE]: oneLine(reason) });
      for await (const line of sources.finishedCalls(query, onIncomplete)) await write(response, `${line}\n`);
      if (url.searchParams.get('live') === '1') {
        for (const call of sources.liveCalls(uid, session))
          await write(response, `${JSON.stringify(call)}\n`);
      }
      response.end();
      return;
    }
    case '/v1/advice': {
      const advice = sources.advice(uid)[Symbol.asyncIterator]();
      // The first before the status: a database that does not answer is an error, and not "nothing".
      let next = await advice.next();
      startLines(response);
      for (; !next.done; next = await advice.next()) await write(response, `${JSON.stringify(next.value)}\n`);
      response.end();
      return;
    }
    case '/v1/events': {
      startLines(response);
      if (url.searchParams.get('follow') !== '1') {
        for (const event of sources.events.remembered(uid))
          await write(response, `${JSON.stringify(event)}\n`);
        response.end();
        return;
      }
      response.flushHeaders();
      const gone = new AbortController();
      response.once('close', () => gone.abort());
      for await (const event of sources.events.follow(uid, gone.signal)) {
        await write(response, `${JSON.stringify(event)}\n`);
      }
      return;
    }
  }
  sendJson(response, 404, { error: `no such path: ${url.pathname}` });
}

function startLines(response: ServerResponse, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, { 'content-type': 'application/x-ndjson', ...headers });
}

/** What an HTTP field can carry. */
function oneLine(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]+/g, ' ');
}

/** Waits for a slow reader; a reader that has gone ends the answer. */
async function write(response: ServerResponse, text: string): Promise<void> {
  if (response.destroyed) throw new Error('reader has gone');
  if (response.write(text)) return;
  const closed = new AbortController();
  try {
    await Promise.race([
      once(response, 'drain', { signal: closed.signal }),
      once(response, 'close', { signal: closed.signal }),
    ]);
  } finally {
    closed.abort();
  }
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  sendText(response, status, `${JSON.stringify(body)}\n`, 'application/json');
}

function sendText(response: ServerResponse, status: number, body: string, type = 'text/plain'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}
