// SPDX-License-Identifier: Apache-2.0
import { type Dispatcher, Pool } from 'undici';
import type { Provider } from './routes.ts';

/** An upstream that does not even accept a connection by then is down; a turn's own patience begins after it. */
const CONNECT_MS = 10_000;
/** As long as idle connections are kept by the servers of the field; a reused one saves two round trips. */
const IDLE_MS = 60_000;
/** Rate limits and request ids make some KiB; Node's own limit for what it serves is 16. */
const MAX_HEADER_BYTES = 64 * 1024;

const CONNECTIONS = {
  // The reaper owns time: a model may think for longer than any default.
  headersTimeout: 0,
  bodyTimeout: 0,
  connectTimeout: CONNECT_MS,
  keepAliveTimeout: IDLE_MS,
  maxHeaderSize: MAX_HEADER_BYTES,
  // A turn has its connection for itself: with HTTP/2 a slow reader would hold up the others' streams.
  allowH2: false,
  pipelining: 1,
  // As many as there are lanes.
  connections: null,
} as const;

/** Where the requests of a provider go. */
interface Upstream {
  /** Before the path of each request; without a slash at its end. */
  readonly prefix: string;
  readonly pool: Pool;
}

/** The upstreams, and the connections to them. */
export class Upstreams {
  readonly #of: Readonly<Record<Provider, Upstream>>;

  constructor(urls: Readonly<Record<Provider, string>>) {
    this.#of = { anthropic: upstreamOf(urls.anthropic), openai: upstreamOf(urls.openai) };
  }

  /**
   * Sends a request.
   * @param target as in the client's request line
   * @param body null for none
   */
  dispatch(
    provider: Provider,
    request: {
      readonly method: string;
      readonly target: string;
      readonly headers: string[];
      readonly body: Dispatcher.DispatchOptions['body'];
    },
    handler: Dispatcher.DispatchHandler,
  ): void {
    const { prefix, pool } = this.#of[provider];
    const { method, target, headers, body } = request;
    // A base URL with the API's version in it is as usual as one without.
    const path =
      prefix.endsWith('/v1') && target.startsWith('/v1/') ? prefix + target.slice(3) : prefix + target;
    pool.dispatch({ path, method, headers, body: body ?? null }, handler);
  }

  /** Ends all connections, without waiting for those in use. */
  async close(): Promise<void> {
    await Promise.all(Object.values(this.#of).map(({ pool }) => pool.destroy()));
  }
}

function upstreamOf(url: string): Upstream {
  const { origin, pathname } = new URL(url);
  return { prefix: pathname.replace(/\/+$/, ''), pool: new Pool(origin, CONNECTIONS) };
}
