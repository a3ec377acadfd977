// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from 'node:http';
import { errorBody, errorHeaders, type ProxyError } from './api-errors.ts';
import type { RawHeaders } from './headers.ts';
import type { Provider } from './routes.ts';

/** Sends the head of a response as it came from the upstream; nothing of ours is added but what the connection needs. */
export function sendHead(
  response: ServerResponse,
  status: number,
  statusText: string,
  headers: RawHeaders,
): void {
  // A Date of ours would be one that the upstream has not sent.
  response.sendDate = false;
  response.writeHead(status, statusText, headers as string[]);
}

/**
 * Ends a response. Trailers go with it if the client's connection can have any: not with HTTP/1.0, nor with a length
 * that was announced.
 */
export function endWith(response: ServerResponse, trailers: RawHeaders): void {
  if (trailers.length > 0) {
    const pairs: [string, string][] = [];
    for (let at = 0; at + 1 < trailers.length; at += 2)
      pairs.push([trailers[at] as string, trailers[at + 1] as string]);
    response.addTrailers(pairs);
  }
  response.end();
}

/** Answers with an error in the API's form. @param close whether the connection ends with it */
export function sendError(
  response: ServerResponse,
  provider: Provider,
  error: ProxyError,
  close = false,
): void {
  const body = errorBody(provider, error);
  response.writeHead(error.status, [...errorHeaders(error, body), ...(close ? CLOSE : [])]);
  response.end(body);
}

/** The same, all of it but its end; the connection closes with that. */
export function startError(response: ServerResponse, provider: Provider, error: ProxyError): void {
  const body = errorBody(provider, error);
  response.writeHead(error.status, [...errorHeaders(error, body), ...CLOSE]);
  response.write(body);
}

const CLOSE = ['connection', 'close'];
