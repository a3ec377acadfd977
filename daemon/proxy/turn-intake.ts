// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Log } from '../log.ts';
import type { Clock } from '../scheduler/clock.ts';
import type { Turn, TurnScheduler } from '../scheduler/types.ts';
import { sessionKey } from '../session/name.ts';
import { credentialName } from './credential.ts';
import { InputEstimator, OutputEstimator, rawTokensOf } from './estimate.ts';
import { requestHeaders } from './headers.ts';
import { identify, modelClassOf, WANTED } from './identify.ts';
import type { ProxyMetrics } from './metrics.ts';
import { Peers } from './peers.ts';
import type { Rejections } from './rejections.ts';
import { type BodyBudget, type BodyFailure, readBody } from './request-body.ts';
import type { Route } from './routes.ts';
import type { TcpOwner } from './socket-owner.ts';
import { type EarlyStream, TurnExchange, type TurnParts } from './turn.ts';
import type { Upstreams } from './upstream.ts';

/** What of the settings decides how turns are taken in. */
export interface IntakeSettings {
  readonly maxBodyBytes: number;
  readonly earlyStream: EarlyStream | null;
  /** Parts of the names of models and clients whose turns are background work. */
  readonly background: readonly string[];
}

export interface IntakeParts {
  /** As they are in force. */
  readonly settings: () => IntakeSettings;
  readonly scheduler: TurnScheduler;
  readonly clock: Clock;
  readonly upstreams: Upstreams;
  readonly bodies: BodyBudget;
  /** Under which credentials are hashed. */
  readonly key: string;
  /** Null: whose a connection is stands in tables of /proc alone. */
  readonly tcpOwner: TcpOwner | null;
  readonly metrics: ProxyMetrics;
  readonly rejections: Rejections;
  readonly log: Log;
}

type TurnRoute = Extract<Route, { kind: 'turn' }>;

/** Makes turns of requests: reads the body, finds out whose it is and how much it asks for, and starts the exchange. */
export class TurnIntake {
  readonly #parts: IntakeParts;
  readonly #inputs = new InputEstimator();
  readonly #outputs = new OutputEstimator();
  readonly #peers: Peers;
  #turns = 0;

  constructor(parts: IntakeParts) {
    this.#parts = parts;
    this.#peers = new Peers(parts.tcpOwner);
  }

  /** Resolves when the exchange has begun, or there will be none. */
  async take(route: TurnRoute, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { bodies, clock, key, log, metrics, scheduler, settings, upstreams } = this.#parts;
    const { maxBodyBytes } = settings();
    const body = await readBody(request, { maxBytes: maxBodyBytes, budget: bodies, wanted: WANTED });
    if (typeof body === 'string') return this.#bodyFailed(body, route, request, response);
    const size = body.bytes.length;
    const { provider, api } = route;
    const identity = identify(api, request.headers, body, (model, client) =>
      this.#isBackground(model, client),
    );
    const credential = credentialName(key, request.headers);
    const modelClass = modelClassOf(identity.model);
    const model = `${credential} ${modelClass} ${api}`;
    const who = `${credential} ${modelClass} ${identity.session ?? ''} ${identity.agent ?? ''}`;
    const peer = this.#peers.of(request.socket, `${credential} ${identity.session ?? ''}`);
    const { uid, place } = peer instanceof Promise ? await peer : peer;
    if (response.destroyed) return bodies.give(size);
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
      inputTokens: this.#inputs.estimate(who, rawTokens),
      streaming: identity.streaming,
      retryable: identity.retryable,
      bodyHash: body.hash,
      ...(place === null ? {} : { place }),
      ...(identity.clientTimeoutMs === null ? {} : { clientTimeoutMs: identity.clientTimeoutMs }),
      ...(identity.deadlineMs === null ? {} : { deadlineMs: identity.deadlineMs }),
    };
    const parts: TurnParts = {
      scheduler,
      upstreams,
      clock,
      earlyStream: settings().earlyStream,
      written: {
        estimate: (characters) => this.#outputs.estimate(model, characters),
        learn: (characters, tokens) => this.#outputs.learn(model, characters, tokens),
      },
      onHung: (evidence, verdict) => {
        log.warn({ ...evidence, modelClass, action: verdict.action }, 'turn hung');
      },
      onEnd: (report) => {
        // To Node it is done only when its end was read, for which nobody had to wait.
        request.resume();
        bodies.give(size);
        metrics.ended(provider, report);
        const { inputTokens } = report.usage;
        if (inputTokens !== undefined) this.#inputs.learn(who, rawTokens, inputTokens);
        const { outcome, waitedMs } = report;
        log.debug({ turn: turn.id, session: turn.session, modelClass, outcome, waitedMs }, 'turn ended');
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
    return this.#parts.settings().background.some((part) => model.includes(part) || client.includes(part));
  }

  #bodyFailed(
    failure: BodyFailure,
    { provider }: TurnRoute,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const { rejections, settings } = this.#parts;
    if (failure === 'gone') {
      response.destroy();
    } else if (failure === 'too-large') {
      const message = `the request is larger than ${settings().maxBodyBytes} bytes`;
      rejections.request(request, response, provider, 'too-large', { status: 413, message });
    } else {
      const message = 'the proxy holds as many requests as it may; try again shortly';
      const status = provider === 'anthropic' ? 529 : 503;
      rejections.request(request, response, provider, 'no-room', { status, message, retryAfterMs: 1_000 });
    }
  }
}
