// SPDX-License-Identifier: Apache-2.0
import type { SecureContext } from 'node:tls';
import { buildConnector, type Dispatcher, Pool } from 'undici';
import { PROVIDERS, type Provider } from './routes.ts';
import { connectThrough, connectTo, proxyAuthorization } from './tunnel.ts';

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
  keepAliveTimeout: IDLE_MS,
  maxHeaderSize: MAX_HEADER_BYTES,
  // A turn has its connection for itself: with HTTP/2 a slow reader would hold up the others' streams.
  allowH2: false,
  pipelining: 1,
  // As many as there are lanes.
  connections: null,
} as const;

/** Where the requests of a provider go, and how. */
export interface UpstreamSettings {
  readonly url: string;
  /** The HTTP proxy in between; null: none. */
  readonly via: URL | null;
  /** Certificates in PEM that are trusted besides those that Node trusts; null: none. */
  readonly ca: string | null;
}

interface Upstream {
  readonly settings: UpstreamSettings;
  /** Before the path of each request; without a slash at its end. */
  readonly prefix: string;
  /** Added to each request, names and values in turn. */
  readonly headers: readonly string[];
  readonly pool: Pool;
}

/** The upstreams, and the connections to them. */
export class Upstreams {
  readonly #of: Record<Provider, Upstream>;
  /** Of settings that are no longer in force, while requests are under way. */
  readonly #retired = new Set<Pool>();

  constructor(settings: Readonly<Record<Provider, UpstreamSettings>>) {
    this.#of = { anthropic: upstreamOf(settings.anthropic), openai: upstreamOf(settings.openai) };
  }

  /** Requests to come go by these; those under way end where they are. */
  set(settings: Readonly<Record<Provider, UpstreamSettings>>): void {
    const changed = PROVIDERS.filter((provider) => !isSame(this.#of[provider].settings, settings[provider]));
    // All of them first: what cannot be used leaves everything as it is.
    const opened = changed.map((provider) => [provider, upstreamOf(settings[provider])] as const);
    for (const [provider, upstream] of opened) {
      const { pool } = this.#of[provider];
      this.#of[provider] = upstream;
      this.#retired.add(pool);
      pool.close().then(
        () => this.#retired.delete(pool),
        () => this.#retired.delete(pool),
      );
    }
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
    const { prefix, pool, headers: added } = this.#of[provider];
    const { method, target, body } = request;
    const headers = added.length > 0 ? [...added, ...request.headers] : request.headers;
    // A base URL with the API's version in it is as usual as one without.
    const path =
      prefix.endsWith('/v1') && target.startsWith('/v1/') ? prefix + target.slice(3) : prefix + target;
    pool.dispatch({ path, method, headers, body: body ?? null }, handler);
  }

  /** Ends all connections, without waiting for those in use. */
  async close(): Promise<void> {
    const pools = [...Object.values(this.#of).map(({ pool }) => pool), ...this.#retired];
    await Promise.all(pools.map((pool) => pool.destroy()));
  }
}

function isSame(a: UpstreamSettings, b: UpstreamSettings): boolean {
  return a.url === b.url && a.via?.href === b.via?.href && a.ca === b.ca;
}

/** @throws Error if the certificates are none. */
function upstreamOf(settings: UpstreamSettings): Upstream {
  const { url, via, ca } = settings;
  const { origin, pathname, protocol, host } = new URL(url);
  const prefix = pathname.replace(/\/+$/, '');
  const secureContext = ca === null ? undefined : trusting(ca);
  const secure = buildConnector({
    timeout: CONNECT_MS,
    allowH2: false,
    ...(secureContext === undefined ? {} : { secureContext }),
  });
  if (via === null)
    return { settings, prefix, headers: [], pool: new Pool(origin, { ...CONNECTIONS, connect: secure }) };
  if (protocol === 'https:') {
    const connect = connectThrough(via, secure, secureContext, CONNECT_MS);
    return { settings, prefix, headers: [], pool: new Pool(origin, { ...CONNECTIONS, connect }) };
  }
  // Without TLS the proxy itself asks, for a whole URL.
  const authorization = proxyAuthorization(via);
  return {
    settings,
    prefix: origin + prefix,
    headers: ['host', host, ...(authorization === null ? [] : ['proxy-authorization', authorization])],
    pool: new Pool(via.origin, { ...CONNECTIONS, connect: connectTo(via, secure) }),
  };
}

/** Once, and not for each connection: there are some 150 certificates of Node's own. */
function trusting(ca: string): SecureContext {
  // Not imported: it is some MiB, which undici too loads only where it is needed.
  const { createSecureContext, getCACertificates } = process.getBuiltinModule('node:tls');
  return createSecureContext({ ca: [...getCACertificates('default'), ca] });
}
