// SPDX-License-Identifier: Apache-2.0
import type { IncomingHttpHeaders } from 'node:http';

/** Whose API a request is for. */
export const PROVIDERS = ['anthropic', 'openai'] as const;
export type Provider = (typeof PROVIDERS)[number];

/** The calls of which each is one turn of a model; they are queued, watched and counted. */
export const TURN_APIS = ['messages', 'chat', 'responses'] as const;
export type TurnApi = (typeof TURN_APIS)[number];

export type Route =
  | { readonly kind: 'turn'; readonly provider: Provider; readonly api: TurnApi }
  /** Passes through without being looked at. */
  | { readonly kind: 'pass'; readonly provider: Provider }
  /** Answered here: is anybody there? */
  | { readonly kind: 'probe' }
  /** Not for us: another host's address, or a target that is no path. */
  | { readonly kind: 'bad'; readonly provider: Provider; readonly reason: string };

const TURN_PATHS: Readonly<Record<string, Extract<Route, { kind: 'turn' }>>> = {
  '/v1/messages': { kind: 'turn', provider: 'anthropic', api: 'messages' },
  '/v1/chat/completions': { kind: 'turn', provider: 'openai', api: 'chat' },
  '/v1/responses': { kind: 'turn', provider: 'openai', api: 'responses' },
};

/** Headers that every client of the Anthropic API sends, and no client of another one. */
const ANTHROPIC_HEADERS = ['anthropic-version', 'x-api-key'] as const;

/** Where a request goes. `target` is what stands in the request line, with the query. */
export function routeOf(method: string, target: string, headers: IncomingHttpHeaders): Route {
  const end = target.indexOf('?');
  const path = end < 0 ? target : target.slice(0, end);
  const provider = providerOf(path, headers);
  if (!path.startsWith('/')) {
    return { kind: 'bad', provider, reason: 'this is a proxy for model APIs, to be used as their base URL' };
  }
  const turn = TURN_PATHS[path];
  if (turn !== undefined && method === 'POST') return turn;
  if (path === '/' && method === 'HEAD') return { kind: 'probe' };
  return { kind: 'pass', provider };
}

function providerOf(path: string, headers: IncomingHttpHeaders): Provider {
  const turn = TURN_PATHS[path];
  if (turn !== undefined) return turn.provider;
  if (path === '/v1/messages' || path.startsWith('/v1/messages/')) return 'anthropic';
  return ANTHROPIC_HEADERS.some((name) => headers[name] !== undefined) ? 'anthropic' : 'openai';
}
