// SPDX-License-Identifier: Apache-2.0
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Dispatcher } from 'undici';
import { messageOf } from '../errors.ts';
import { endWith, sendError, sendHead } from './client-response.ts';
import { rawHeadersOf, requestHeaders, responseHeaders, trailersOf } from './headers.ts';
import type { Provider } from './routes.ts';
import type { Upstreams } from './upstream.ts';

/**
 * Passes a request that is no turn, such as a list of models or the upload of a file: both bodies flow as
 * fast as the slower side takes them, and nothing is kept.
 * @param onEnd called once, with whether the upstream's whole answer went to the client
 */
export function passThrough(
  upstreams: Upstreams,
  provider: Provider,
  request: IncomingMessage,
  response: ServerResponse,
  onEnd: (complete: boolean) => void,
): void {
  const handler = new PassThrough(provider, response, onEnd);
  const { method = 'GET', url = '/' } = request;
  const hasBody =
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length']) > 0;
  const length = request.headers['content-length'];
  const headers = requestHeaders(request.rawHeaders, hasBody && length !== undefined ? Number(length) : null);
  upstreams.dispatch(provider, { method, target: url, headers, body: hasBody ? request : null }, handler);
}

class PassThrough implements Dispatcher.DispatchHandler {
  readonly #provider: Provider;
  readonly #response: ServerResponse;
  readonly #onEnd: (complete: boolean) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #over = false;

  constructor(provider: Provider, response: ServerResponse, onEnd: (complete: boolean) => void) {
    this.#provider = provider;
    this.#response = response;
    this.#onEnd = onEnd;
    response.on('close', () => {
      if (this.#over) return;
      this.#end(false);
      this.#controller?.abort(new Error('the client has gone'));
    });
    response.on('drain', () => this.#controller?.resume());
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) controller.abort(new Error('the client has gone'));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: IncomingHttpHeaders,
    statusText = '',
  ): void {
    if (this.#over) return;
    sendHead(this.#response, status, statusText, responseHeaders(rawHeadersOf(controller)));
    process.nextTick(() => {
      if (!this.#over) this.#response.flushHeaders();
    });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#over && !this.#response.write(chunk)) controller.pause();
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#over) return;
    this.#end(true);
    endWith(this.#response, trailersOf(controller));
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.#over) return;
    this.#end(false);
    if (this.#response.headersSent) this.#response.destroy();
    else {
      const message = `the model API cannot be reached: ${messageOf(error)}`;
      sendError(this.#response, this.#provider, { status: 502, message }, true);
    }
  }

  #end(complete: boolean): void {
    this.#over = true;
    this.#onEnd(complete);
  }
}
