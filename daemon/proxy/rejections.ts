// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { errnoOf } from '../errors.ts';
import type { ProxyError } from './api-errors.ts';
import { sendError, startError } from './client-response.ts';
import type { ProxyMetrics, Rejection } from './metrics.ts';
import type { Provider } from './routes.ts';

/** A refused body is read on so long, because a client that is still sending would not see the answer. */
const LINGER_MS = 2_000;

/** Answers to what is no request that the proxy takes. Each is counted by its reason. */
export class Rejections {
  readonly #metrics: ProxyMetrics;

  constructor(metrics: ProxyMetrics) {
    this.#metrics = metrics;
  }

  /** Answers before the request is read to its end; the connection ends with it. */
  request(
    request: IncomingMessage,
    response: ServerResponse,
    provider: Provider,
    reason: Rejection,
    error: ProxyError,
  ): void {
    this.#metrics.rejected(reason);
    if (request.complete) {
      sendError(response, provider, error, true);
      return;
    }
    // Closing with bytes unread would reset the connection, and the answer with it: the client has all of it
    // now, and the end of the response waits for that of the request.
    startError(response, provider, error);
    const linger = setTimeout(() => response.destroy(), LINGER_MS);
    response.once('close', () => clearTimeout(linger));
    request.once('end', () => response.end());
    request.resume();
  }

  /** What Node could not read as a request. Which API it was meant for is unknown: the answer fits both. */
  unreadable(error: NodeJS.ErrnoException, socket: Duplex): void {
    const [reason, status, text] = describeClientError(errnoOf(error) ?? '');
    if (reason === null || !socket.writable) {
      socket.destroy();
      return;
    }
    this.#metrics.rejected(reason);
    const type = 'invalid_request_error';
    const body = JSON.stringify({ type: 'error', error: { type, message: text, param: null, code: null } });
    const head = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n`;
    socket.end(head + body);
  }

  /** CONNECT: it is no proxy of that kind. */
  tunnel(socket: Duplex): void {
    this.#metrics.rejected('bad-request');
    socket.end('HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
  }
}

/** @returns a null reason for a connection that is gone. */
function describeClientError(code: string): readonly [Rejection | null, string, string] {
  switch (code) {
    case 'ECONNRESET':
    case 'EPIPE':
      return [null, '', ''];
    case 'HPE_HEADER_OVERFLOW':
      return ['headers-too-large', '431 Request Header Fields Too Large', 'the headers are too large'];
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return ['slow', '408 Request Timeout', 'the request did not come in time'];
    default:
      return ['bad-request', '400 Bad Request', 'this is no HTTP/1.1 request'];
  }
}
