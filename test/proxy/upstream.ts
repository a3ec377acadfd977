// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** What a stand-in upstream does next while it answers. */
export type Step =
  /** Sends these bytes, in one write. */
  | string
  | Buffer
  /** Waits until this has happened. */
  | { readonly after: Promise<unknown> }
  /** Closes the connection in the middle of the response. */
  | 'cut'
  /** Sends nothing more, and leaves the connection open. */
  | 'stall';

export interface Answer {
  readonly status?: number;
  /** Names and values in turn. */
  readonly headers?: readonly string[];
  /** One after the other; those that are made on the way are not asked for any more once nobody waits for them. */
  readonly steps: Iterable<Step> | AsyncIterable<Step>;
  /** What comes behind the body, which is chunked then. */
  readonly trailers?: Readonly<Record<string, string>>;
}

/** A request as it came in. */
export interface Received {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  /** Settles when the connection has no more to do with this request: with whether it was answered to its end. */
  readonly over: Promise<boolean>;
}

/** Decides about each request; 'silent' never answers. */
export type Script = (request: Received, index: number) => Answer | 'silent' | 'reset';

/** Key and certificate in PEM. */
export interface Identity {
  readonly key: string;
  readonly cert: string;
}

/** A model API on loopback that does what a test says, wrong or right. */
export class StandIn {
  readonly received: Received[] = [];
  script: Script;
  /** Of the bodies of all answers, what was handed to the connection. */
  writtenBytes = 0;
  readonly #server: Server;
  readonly #scheme: string;
  readonly #sockets = new Set<Socket>();
  readonly #waiting: { count: number; resolve: () => void }[] = [];

  /** @param identity with which it speaks TLS */
  constructor(script: Script, identity?: Identity) {
    this.script = script;
    const options = { requestTimeout: 0, maxHeaderSize: 128 * 1024 };
    const handle = (request: IncomingMessage, response: ServerResponse): void => {
      this.#handle(request, response).catch(() => response.destroy());
    };
    this.#scheme = identity === undefined ? 'http' : 'https';
    this.#server =
      identity === undefined
        ? createServer(options, handle)
        : createTlsServer({ ...options, ...identity }, handle);
    this.#server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  /** @param t closes it at its end */
  static async start(t: TestContext, script: Script, identity?: Identity): Promise<StandIn> {
    const upstream = new StandIn(script, identity);
    await upstream.listen();
    t.after(() => upstream.close());
    return upstream;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  async listen(): Promise<void> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  /** Resolves when so many requests have come in. */
  count(count: number): Promise<void> {
    if (this.received.length >= count) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ count, resolve }));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const over = new Promise<boolean>((resolve) =>
      response.once('close', () => resolve(response.writableFinished)),
    );
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const received: Received = {
      method: request.method ?? '',
      target: request.url ?? '',
      headers: request.headers,
      rawHeaders: request.rawHeaders,
      body: Buffer.concat(chunks),
      over,
    };
    const index = this.received.push(received) - 1;
    for (const waiting of this.#waiting) if (this.received.length >= waiting.count) waiting.resolve();
    const answer = this.script(received, index);
    if (answer === 'silent') return;
    if (answer === 'reset') {
      request.socket.resetAndDestroy();
      return;
    }
    response.sendDate = false;
    response.writeHead(answer.status ?? 200, [...(answer.headers ?? JSON_HEADERS)]);
    response.flushHeaders();
    for await (const step of answer.steps) {
      if (response.destroyed) return;
      if (step === 'stall') return;
      if (step === 'cut') {
        // What was written must be on its way first.
        await new Promise<void>((resolve) => response.write('', () => resolve()));
        response.destroy();
        return;
      }
      if (typeof step === 'object' && 'after' in step) await step.after;
      else {
        this.writtenBytes += step.length;
        if (response.write(step)) continue;
        await new Promise((resolve) => {
          response.once('drain', resolve);
          over.then(resolve);
        });
      }
    }
    if (answer.trailers !== undefined) response.addTrailers(answer.trailers);
    response.end();
  }
}

export const JSON_HEADERS = ['content-type', 'application/json'] as const;
export const STREAM_HEADERS = ['content-type', 'text/event-stream; charset=utf-8'] as const;
