// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { AgentrmError, errnoOf, messageOf } from '../errors.ts';
import { createServer } from '../http.ts';
import type { Log } from '../log.ts';
import type { Clock } from '../scheduler/clock.ts';
import type { Turn, TurnScheduler } from '../scheduler/types.ts';
import { sessionKey } from '../session/name.ts';
import { sendError, startError } from './client-response.ts';
import { credentialName } from './credential.ts';
import { InputEstimator, OutputEstimator, rawTokensOf } from './estimate.ts';
import { requestHeaders } from './headers.ts';
import { identify, modelClassOf, WANTED } from './identify.ts';
import { ProxyMetrics, type Rejection } from './metrics.ts';
import { passThrough } from './pass-through.ts';
import { Peers } from './peers.ts';
import { BodyBudget, type BodyFailure, readBody } from './request-body.ts';
import { type Provider, type Route, routeOf } from './routes.ts';
import type { TcpOwner } from './socket-owner.ts';
import { type EarlyStream, TurnExchange, type TurnParts } from './turn.ts';
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
/** A refused body is read on so long, because a client that is still sending would not see the answer. */
const LINGER_MS = 2_000;

export interface ProxySettings {
  readonly listen: { readonly host: string; readonly port: number };
  readonly upstreams: Readonly<Record<Provider, UpstreamSettings>>;
  readonly maxBodyBytes: number;
  readonly maxBodiesBytes: number;
  readonly maxConnections: number;
  readonly earlyStream: EarlyStream | null;
  /** How long a client may take; others than {@link PATIENCE} are for tests. */
  readonly patience?: Patience;
  /** Parts of the names of models and clients whose turns are background work. */
  readonly background: readonly string[];
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
  readonly #estimator = new InputEstimator();
  readonly #outputs = new OutputEstimator();
  readonly #peers: Peers;
  #turns = 0;
  #live = 0;
  #closing = false;
  #idle: (() => void) | undefined;

  constructor(parts: ProxyParts) {
    this.#parts = parts;
    this.#settings = parts.settings;
    this.#upstreams = new Upstreams(parts.settings.upstreams);
    this.#peers = new Peers(parts.tcpOwner);
    this.#bodies = new BodyBudget(parts.settings.maxBodiesBytes);
    this.metrics = new ProxyMetrics(parts.scheduler, () => this.#bodies.heldBytes);
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
    this.#server.on('clientError', (error, socket) => this.#clientError(error, socket));
    this.#server.on('connect', (_request, socket) => this.#refuseTunnel(socket));
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
      this.#reject(request, response, route, 'upgrade', 426, message);
    } else if (route.kind === 'bad') {
      this.#reject(request, response, route, 'bad-request', 400, route.reason);
    } else if (route.kind === 'pass') {
      passThrough(this.#upstreams, route.provider, request, response, () =>
        this.metrics.passed(route.provider),
      );
    } else {
      this.#turn(route, request, response).catch((error: unknown) => {
        this.#parts.log.error({ err: error }, 'request failed');
        if (response.headersSent) response.destroy();
        else sendError(response, route.provider, { status: 500, message: 'the proxy failed' }, true);
      });
    }
  }

  async #turn(route: Extract<Route, { kind: 'turn' }>, request: IncomingMessage, response: ServerResponse) {
    const { maxBodyBytes } = this.#settings;
    const body = await readBody(request, { maxBytes: maxBodyBytes, budget: this.#bodies, wanted: WANTED });
    if (typeof body === 'string') return this.#bodyFailed(body, route, request, response);
    const size = body.bytes.length;
    const { provider, api } = route;
    const identity = identify(api, request.headers, body, (model, client) =>
      this.#isBackground(model, client),
    );
    const credential = credentialName(this.#parts.key, request.headers);
    const modelClass = modelClassOf(identity.model);
    const model = `${credential} ${modelClass} ${api}`;
    const who = `${credential} ${modelClass} ${identity.session ?? ''} ${identity.agent ?? ''}`;
    const { uid, place } = await this.#peers.of(request.socket, `${credential} ${identity.session ?? ''}`);
    if (response.destroyed) return this.#bodies.give(size);
    const rawTokens = rawTokensOf(size, body.scan);
    this.#turns += 1;
    const turn: Turn = {
      id: `t${this.#turns}`,
      // Turns of nobody in particular are one session of their credential.
      session: sessionKey(uid, identity.session ?? `of ${credential}`),
      ...(identity.agent === null ? {} : { agent: identity.agent }),
      provider,
      credential,
      modelClass,
      class: identity.class,
      runStart: identity.runStart,
      inputTokens: this.#estimator.estimate(who, rawTokens),
      streaming: identity.streaming,
      retryable: identity.retryable,
      bodyHash: body.hash,
      ...(place === null ? {} : { place }),
      ...(identity.clientTimeoutMs === null ? {} : { clientTimeoutMs: identity.clientTimeoutMs }),
      ...(identity.deadlineMs === null ? {} : { deadlineMs: identity.deadlineMs }),
    };
    const parts: TurnParts = {
      scheduler: this.#parts.scheduler,
      upstreams: this.#upstreams,
      clock: this.#parts.clock,
      earlyStream: this.#settings.earlyStream,
      written: {
        estimate: (characters) => this.#outputs.estimate(model, characters),
        learn: (characters, tokens) => this.#outputs.learn(model, characters, tokens),
      },
      onHung: (evidence, verdict) => {
        this.#parts.log.warn({ ...evidence, modelClass, action: verdict.action }, 'turn hung');
      },
      onEnd: (report) => {
        this.#bodies.give(size);
        this.metrics.ended(provider, report);
        const { inputTokens } = report.usage;
        if (inputTokens !== undefined) this.#estimator.learn(who, rawTokens, inputTokens);
        this.#parts.log.debug(
          {
            turn: turn.id,
            session: turn.session,
            modelClass,
            outcome: report.outcome,
            waitedMs: report.waitedMs,
          },
          'turn ended',
        );
      },
    };
    const headers = requestHeaders(request.rawHeaders, size);
    new TurnExchange(
      parts,
      turn,
      { provider, api, target: request.url ?? '/', headers, body: body.bytes },
      response,
    ).start();
  }

  #isBackground(model: string, client: string): boolean {
    return this.#settings.background.some((part) => model.includes(part) || client.includes(part));
  }

  #bodyFailed(
    failure: BodyFailure,
    route: Extract<Route, { kind: 'turn' }>,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    if (failure === 'gone') {
      response.destroy();
    } else if (failure === 'too-large') {
      const message = `the request is larger than ${this.#settings.maxBodyBytes} bytes`;
      this.#reject(request, response, route, 'too-large', 413, message);
    } else {
      const message = 'the proxy holds as many requests as it may; try again shortly';
      const status = route.provider === 'anthropic' ? 529 : 503;
      this.#reject(request, response, route, 'no-room', status, message, 1_000);
    }
  }

  /** Answers before the request is read to its end; the connection ends with it. */
  #reject(
    request: IncomingMessage,
    response: ServerResponse,
    route: Exclude<Route, { kind: 'probe' }>,
    reason: Rejection,
    status: number,
    message: string,
    retryAfterMs: number | null = null,
  ): void {
    this.metrics.rejected(reason);
    const error = { status, message, retryAfterMs };
    if (request.complete) {
      sendError(response, route.provider, error, true);
      return;
    }
    // Closing with bytes unread would reset the connection, and the answer with it: the client has all of it
    // now, and the end of the response waits for that of the request.
    startError(response, route.provider, error);
    const linger = setTimeout(() => response.destroy(), LINGER_MS);
    response.once('close', () => clearTimeout(linger));
    request.once('end', () => response.end());
    request.resume();
  }

  /** What Node could not read as a request. Which API it was meant for is unknown: the answer fits both. */
  #clientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const [reason, status, text] = describeClientError(errnoOf(error) ?? '');
    if (reason === null || !socket.writable) {
      socket.destroy();
      return;
    }
    this.metrics.rejected(reason);
    const type = 'invalid_request_error';
    const body = JSON.stringify({ type: 'error', error: { type, message: text, param: null, code: null } });
    const head = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n`;
    socket.end(head + body);
  }

  #refuseTunnel(socket: Duplex): void {
    this.metrics.rejected('bad-request');
    (socket as Socket).end(
      'HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n',
    );
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
