// SPDX-License-Identifier: Apache-2.0
import type { Provider, TurnApi } from './routes.ts';

/**
 * An error that the proxy itself has for a client, before it has the form of an API. The status is one
 * that the API has too, so that clients deal with it as they do without us.
 */
export interface ProxyError {
  readonly status: number;
  readonly message: string;
  /** Null: no Retry-After. */
  readonly retryAfterMs?: number | null;
  /** For `x-should-retry`; null: left to the client. */
  readonly shouldRetry?: boolean | null;
  /** Further ones, names and values in turn. */
  readonly headers?: readonly string[];
}

/** The types of errors of the Messages API by status. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  504: 'timeout_error',
  529: 'overloaded_error',
};

/** Types of the OpenAI APIs; what is the server's fault is one. */
const OPENAI_TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  429: 'rate_limit_error',
};

/** The body of an error response. */
export function errorBody(provider: Provider, { status, message }: ProxyError): string {
  return JSON.stringify(
    provider === 'anthropic' ? anthropicError(status, message) : openaiError(status, message),
  );
}

/** Its headers besides those of the connection, names and values in turn. */
export function errorHeaders(error: ProxyError, body: string): string[] {
  const headers = ['content-type', 'application/json', 'content-length', String(Buffer.byteLength(body))];
  headers.push(...retryHeaders(error), ...(error.headers ?? []));
  return headers;
}

/** `retry-after` and `x-should-retry`, as far as there is something to say. */
export function retryHeaders({
  retryAfterMs,
  shouldRetry,
}: Pick<ProxyError, 'retryAfterMs' | 'shouldRetry'>): string[] {
  const headers: string[] = [];
  // Whole seconds, so that every client understands it; upwards, so that none comes too early.
  if (retryAfterMs != null) headers.push('retry-after', String(Math.max(0, Math.ceil(retryAfterMs / 1000))));
  if (shouldRetry != null) headers.push('x-should-retry', String(shouldRetry));
  return headers;
}

/**
 * The event that ends a stream with an error, as the API would send it.
 * @param sequence of the event in its stream, for the Responses API
 */
export function errorEvent(api: TurnApi, { status, message }: ProxyError, sequence: number): string {
  switch (api) {
    case 'messages':
      return `event: error\ndata: ${JSON.stringify(anthropicError(status, message))}\n\n`;
    case 'chat':
      return `data: ${JSON.stringify(openaiError(status, message))}\n\n`;
    case 'responses': {
      const { code } = openaiError(status, message).error;
      const data = { type: 'error', code, message, param: null, sequence_number: sequence };
      return `event: error\ndata: ${JSON.stringify(data)}\n\n`;
    }
  }
}

/** What keeps a stream alive without meaning anything. */
export function pingEvent(api: TurnApi): string {
  return api === 'messages' ? 'event: ping\ndata: {"type": "ping"}\n\n' : ': ping\n\n';
}

function anthropicError(status: number, message: string) {
  const type = ANTHROPIC_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
  return { type: 'error', error: { type, message } };
}

function openaiError(status: number, message: string) {
  const type = OPENAI_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'server_error');
  const code = status === 429 ? 'rate_limit_exceeded' : status < 500 ? 'invalid_request' : 'server_error';
  return { error: { message, type, param: null, code } };
}
