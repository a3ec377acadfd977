// SPDX-License-Identifier: Apache-2.0
import type { Dispatcher } from 'undici';

/** Headers as on the wire: names and values in turn, in order, with the case and the repetitions they came with. */
export type RawHeaders = readonly string[];

/** The headers of an upstream's response as undici got them. */
export function rawHeadersOf({ rawHeaders }: Pick<Dispatcher.DispatchController, 'rawHeaders'>): string[] {
  if (!Array.isArray(rawHeaders)) return [];
  return rawHeaders.map((part) => (typeof part === 'string' ? part : part.toString('latin1')));
}

const NONE: RawHeaders = [];

/** What came behind the body of an upstream's chunked response, for the client. */
export function trailersOf({ rawTrailers }: Pick<Dispatcher.DispatchController, 'rawTrailers'>): RawHeaders {
  if (!Array.isArray(rawTrailers) || rawTrailers.length === 0) return NONE;
  return filtered(rawHeadersOf({ rawHeaders: rawTrailers }), (name) => name === 'content-length');
}

/** About one connection and not about the message (RFC 9110, 7.6.1): never passed on. */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** Of a request, what is the sender's own on each connection. Node has answered `expect` already. */
const REQUEST_OWN = new Set(['host', 'expect', 'accept-encoding', 'content-length']);

/**
 * The headers of a client's request for the upstream. Compression is asked for by nobody: the stream is
 * read on its way, and the client is on this machine.
 */
export function requestHeaders(raw: RawHeaders, contentLength: number | null): string[] {
  const headers = filtered(raw, (name) => REQUEST_OWN.has(name));
  headers.push('accept-encoding', 'identity');
  if (contentLength !== null) headers.push('content-length', String(contentLength));
  return headers;
}

/** The headers of an upstream's response for the client. */
export function responseHeaders(raw: RawHeaders): string[] {
  return filtered(raw, () => false);
}

/** The value of a header of which at most one is expected: the first. */
export function headerOf(raw: RawHeaders, name: string): string | undefined {
  for (let at = 0; at + 1 < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() === name) return raw[at + 1];
  }
  return undefined;
}

/** Sets a header in place of those of its name. */
export function withHeader(raw: RawHeaders, name: string, value: string): string[] {
  return [...filtered(raw, (other) => other === name), name, value];
}

function filtered(raw: RawHeaders, drop: (name: string) => boolean): string[] {
  let named: Set<string> | undefined;
  for (let at = 0; at + 1 < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== 'connection') continue;
    named ??= new Set();
    for (const name of raw[at + 1]?.split(',') ?? []) named.add(name.trim().toLowerCase());
  }
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at]?.toLowerCase() ?? '';
    if (HOP_BY_HOP.has(name) || named?.has(name) || drop(name)) continue;
    kept.push(raw[at] as string, raw[at + 1] as string);
  }
  return kept;
}
