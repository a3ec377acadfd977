// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { AgentrmError, messageOf } from '../errors.ts';
import { createServer } from '../http.ts';
import type { Log } from '../log.ts';
import type { Clock } from '../scheduler/clock.ts';
import type { TurnScheduler } from '../scheduler/types.ts';
import { sendError } from './client-response.ts';
import { ProxyMetrics } from './metrics.ts';
import { passThrough } from './pass-through.ts';
import { Rejections } from './rejections.ts';
import { BodyBudget } from './request-body.ts';
import { type Provider, routeOf } from './routes.ts';
import type { TcpOwner } from './socket-owner.ts';
import { type IntakeSettings, TurnIntake } from './turn-intake.ts';
import { type UpstreamSettings, Upstreams } from './upstream.ts';

/** How long a client may take to send a request. */
export interface Patience {
  readonly headersMs: number;
  /** With the body. */
  readonly requestMs: number;
  /** How often Node looks for those that are too slow. */
  readonly checkMs: number;
}

const PATIENCE: Patience = {
  // Agents send their headers in one piece; who needs longer for them is holding a connection.
  headersMs: 15_000,
  // 32 MiB over a slow VPN, at 1 Mbit/s, take 270 s.
  requestMs: 300_000,
  checkMs: 5_000,
};

/** Codex sends the state of its turn in a header, and tokens of identity providers are long; Node's 16 KiB are few. */
const MAX_HEADER_BYTES = 64 * 1024;
/** Longer than clients keep an idle connection, so that it is they who close it and no request meets a closed one. */
const KEEP_ALIVE_MS = 75_000;

export interface ProxySettings extends IntakeSettings {
  readonly listen: { readonly host: string; readonly port: number };
  readonly upstreams: Readonly<Record<Provider, UpstreamSettings>>;
  readonly maxBodiesBytes: number;
  readonly maxConnections: number;
  /** How long a client may take; others than {@link PATIENCE} are for tests. */
  readonly patience?: Patience;
}

export interface ProxyParts {
  readonly settings: ProxySettings;
  readonly scheduler: TurnScheduler;
  readonly clock: Clock;
  /** Under which credentials are hashed. */
  readonly key: string;
  /** Null: whose a connection is stands in tables of /proc alone. */
  readonly tcpOwner: TcpOwner | null;
  readonly log: Log;
}

/** The proxy on its socket. */
export class ProxyServer {
  readonly metrics: ProxyMetrics;
  #settings: ProxySettings;
  readonly #parts: ProxyParts;
  readonly #server: Server;
  readonly #upstreams: Upstreams;
  readonly #bodies: BodyBudget;
  readonly #rejections: Rejections;
  readonly #intake: TurnIntake;
  #live = 0;
  #closing = false;
  #idle: (() => void) | undefined;

  constructor(parts: ProxyParts) {
    this.#parts = parts;
    this.#settings = parts.settings;
    this.#upstreams = new Upstreams(parts.settings.upstreams);
    this.#bodies = new BodyBudget(parts.settings.maxBodiesBytes);
    this.metrics = new ProxyMetrics(parts.scheduler, () => this.#bodies.heldBytes);
    this.#rejections = new Rejections(this.metrics);
    this.#intake = new TurnIntake({
      ...parts,
      settings: () => this.#settings,
      upstreams: this.#upstreams,
      bodies: this.#bodies,
      metrics: this.metrics,
      rejections: this.#rejections,
    });
    const { patience = PATIENCE } = parts.settings;
    this.#server = createServer({
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: patience.headersMs,
      requestTimeout: patience.requestMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: patience.checkMs,
    });
    this.#server.maxConnections = parts.settings.maxConnections;
    this.#server.on('request', (request, response) => this.#handle(request, response));
    this.#server.on('clientError', (error, socket) => this.#rejections.unreadable(error, socket));
    this.#server.on('connect', (_request, socket) => this.#rejections.tunnel(socket));
  }

  /**
   * @returns the port, which is another one than was configured if that was 0.
   * @throws AgentrmError with the address if it cannot be had.
   */
  listen(): Promise<number> {
    const { host, port } = this.#settings.listen;
    return new Promise((resolve, reject) => {
      const failed = (error: Error): void =>
        reject(new AgentrmError('AGENTRM_ERR_SOCKET', `${host}:${port}: ${messageOf(error)}`, error));
      this.#server.once('error', failed);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', failed);
        // EMFILE: what came is closed, and the next one is accepted again.
        this.#server.on('error', (error) => this.#parts.log.error({ err: error }, 'listening'));
        resolve((this.#server.address() as AddressInfo).port);
      });
    });
  }

  /**
   * Other settings, for requests to come. Where it listens and how patient it is stay as they were.
   * @throws Error if the upstreams cannot be used; everything is as it was then.
   */
  configure(settings: ProxySettings): void {
    this.#upstreams.set(settings.upstreams);
    this.#settings = settings;
    this.#bodies.maxBytes = settings.maxBodiesBytes;
    this.#server.maxConnections = settings.maxConnections;
  }

  /**
   * Takes no more requests, waits for those under way at most `drainMs`, and ends what is left.
   */
  async close(drainMs: number): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#server.close();
    this.#server.closeIdleConnections();
    const timer = setTimeout(() => this.#idle?.(), drainMs);
    await this.#untilIdle();
    clearTimeout(timer);
    this.#parts.scheduler.close();
    this.#server.closeAllConnections();
    await this.#untilIdle();
    await this.#upstreams.close();
  }

  /** Until no request is under way, or somebody calls `#idle`. */
  async #untilIdle(): Promise<void> {
    if (this.#live === 0) return;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    // What is wrong with a connection is told by its response, where it is of interest.
    request.on('error', () => {});
    response.on('error', () => {});
    this.#live += 1;
    response.once('close', () => {
      this.#live -= 1;
      if (this.#live === 0) this.#idle?.();
    });
    if (this.#closing) response.shouldKeepAlive = false;
    const { method = 'GET', url = '/' } = request;
    const route = routeOf(method, url, request.headers);
    if (route.kind === 'probe') {
      response.writeHead(200);
      response.end();
    } else if (request.headers.upgrade?.toLowerCase() === 'websocket') {
      // The status at which Codex goes on without.
      const message = 'WebSockets are not supported here; use plain HTTP';
      this.#rejections.request(request, response, route.provider, 'upgrade', { status: 426, message });
    } else if (route.kind === 'bad') {
      const error = { status: 400, message: route.reason };
      this.#rejections.request(request, response, route.provider, 'bad-request', error);
    } else if (route.kind === 'pass') {
      passThrough(this.#upstreams, route.provider, request, response, () =>
        this.metrics.passed(route.provider),
      );
    } else {
      this.#intake.take(route, request, response).catch((error: unknown) => {
        this.#parts.log.error({ err: error }, 'request failed');
        if (response.headersSent) response.destroy();
        else sendError(response, route.provider, { status: 500, message: 'the proxy failed' }, true);
      });
    }
  }
}
