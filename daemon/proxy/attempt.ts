// SPDX-License-Identifier: Apache-2.0
import type { IncomingHttpHeaders } from 'node:http';
import type { Dispatcher } from 'undici';
import { messageOf } from '../errors.ts';
import type { HeaderReader, Lease, Usage, Verdict } from '../scheduler/types.ts';
import { AnswerReading, type WrittenTokens } from './answer-reading.ts';
import { DecodedCopy } from './decoded-copy.ts';
import { EventFrames } from './event-frames.ts';
import { type RawHeaders, rawHeadersOf, responseHeaders, trailersOf } from './headers.ts';
import type { TurnApi } from './routes.ts';
import type { StreamError } from './stream-observer.ts';

/** Error answers are read whole, to decide about a retry; a larger one is passed on without that. */
const MAX_ERROR_BYTES = 256 * 1024;

/** An error answer that says nothing about the client's request; the SDKs send such a request again. */
function isUpstreamError(status: number): boolean {
  return status >= 500 || status === 429 || status === 408 || status === 409;
}

/** The head of a response. */
export interface Answer {
  readonly status: number;
  readonly statusText: string;
  /** For the client. */
  readonly headers: string[];
  /** Whether it is a stream of events. */
  readonly isStream: boolean;
  /** How it is compressed; null: not at all. */
  readonly encoding: string | null;
}

/** The turn, as one attempt to serve it needs it. */
export interface AttemptOwner {
  canFollow(answer: Answer): boolean;
  head(answer: Answer): void;
  forward(bytes: Buffer): void;
  usage(usage: Usage): void;
  /** All bytes are forwarded; what came behind them. */
  end(trailers: RawHeaders): void;
  /** It is known what they mean as well. */
  complete(): void;
  answeredWithError(answer: Answer, body: Buffer, verdict: Verdict): void;
  streamError(held: Buffer, verdict: Verdict): void;
  broke(reason: string, verdict: Verdict, clean: boolean): void;
}

type Mode =
  | 'waiting' // for the head
  | 'error' // an error answer is being collected
  | 'passing' // bytes go to the client
  | 'over';

/** One request to the upstream under one lease: reads the response and says to both sides what it means. */
export class Attempt implements Dispatcher.DispatchHandler {
  readonly #owner: AttemptOwner;
  readonly #lease: Lease;
  readonly #api: TurnApi;
  readonly #written: WrittenTokens;
  #controller: Dispatcher.DispatchController | undefined;
  #mode: Mode = 'waiting';
  #answer: Answer | undefined;
  #headers: HeaderReader = () => undefined;
  /** Of an answer that goes to the client. */
  #reading: AnswerReading | undefined;
  #frames: EventFrames | undefined;
  #decoded: DecodedCopy | undefined;
  #errorBody: Buffer[] = [];
  #errorBytes = 0;
  #committed = false;

  constructor(owner: AttemptOwner, lease: Lease, api: TurnApi, written: WrittenTokens) {
    this.#owner = owner;
    this.#lease = lease;
    this.#api = api;
    this.#written = written;
  }

  /** Events of the stream so far, keep-alives not counted. */
  get events(): number {
    return this.#reading?.events ?? 0;
  }

  /** Undefined before the response's head. */
  get streamsEvents(): boolean | undefined {
    return this.#answer?.isStream;
  }

  /**
   * Ends the attempt towards the upstream; nothing more is heard of it.
   * @returns whether an event can follow what was forwarded.
   */
  abandon(): boolean {
    const clean = this.#clean();
    this.#end();
    return clean;
  }

  /** The client does not read. */
  hold(): void {
    if (this.#mode === 'over') return;
    this.#controller?.pause();
    this.#lease.pause('back-pressure');
  }

  /** The client reads again. */
  go(): void {
    if (this.#mode === 'over') return;
    this.#controller?.resume();
    this.#lease.resume('back-pressure');
  }

  // What undici says.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#mode === 'over') controller.abort(new Error('nobody waits for it any more'));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    statusText = '',
  ): void {
    if (this.#mode === 'over') return;
    this.#headers = (name) => {
      const value = headers[name];
      return Array.isArray(value) ? value[0] : value;
    };
    this.#lease.headers(this.#headers, status);
    const encoding = this.#headers('content-encoding')?.toLowerCase() ?? 'identity';
    const answer: Answer = {
      status,
      statusText,
      headers: responseHeaders(rawHeadersOf(controller)),
      isStream: this.#headers('content-type')?.toLowerCase().startsWith('text/event-stream') ?? false,
      encoding: encoding === 'identity' ? null : encoding,
    };
    this.#answer = answer;
    if (status >= 400) {
      this.#mode = 'error';
      return;
    }
    if (!this.#owner.canFollow(answer)) {
      this.#fail('its answer cannot follow what was already sent');
      return;
    }
    this.#mode = 'passing';
    this.#observe(answer);
    // A stream whose length was announced cannot be continued by another one.
    if (this.#headers('content-length') !== undefined) this.#commit();
    this.#owner.head(answer);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    // What undici hands out is a view of a buffer that it does not use again.
    if (this.#mode === 'error') this.#collectError(chunk);
    else if (this.#reading !== undefined && this.#mode === 'passing') this.#pass(this.#reading, chunk);
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    if (this.#mode === 'error') this.#answeredWithError();
    if (this.#mode !== 'passing') return;
    const rest = this.#frames?.rest();
    if (rest !== undefined && rest.length > 0) this.#forward(rest);
    const trailers = trailersOf(controller);
    if (this.#decoded === undefined) this.#complete(trailers);
    else this.#decoded.end(() => this.#complete(trailers));
  }

  onResponseError(_controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.#mode === 'over') return;
    this.#fail(messageOf(error));
  }

  // A response that goes to the client.

  #observe({ isStream, encoding }: Answer): void {
    const reading = new AnswerReading({
      api: this.#api,
      isStream,
      written: this.#written,
      lease: this.#lease,
      onUsage: (usage) => this.#owner.usage(usage),
    });
    this.#reading = reading;
    if (encoding === null) {
      if (isStream) this.#frames = new EventFrames();
      return;
    }
    this.#decoded = new DecodedCopy(
      encoding,
      (bytes) => this.#readDecoded(reading, bytes),
      () => reading.giveUp(),
    );
  }

  #pass(reading: AnswerReading, chunk: Buffer): void {
    if (this.#decoded !== undefined) {
      // Whether it means progress will be known when it is decoded; that it lives is known now.
      this.#lease.progress(reading.seesEvents ? 'ping' : 'content');
      this.#decoded.push(chunk);
      this.#forward(chunk);
      return;
    }
    const isContent = reading.feed(chunk);
    this.#lease.progress(isContent ? 'content' : 'ping');
    if (this.#frames === undefined) {
      this.#forward(chunk);
      return;
    }
    reading.tellWritten();
    const whole = this.#frames.push(chunk);
    if (reading.error !== undefined && !this.#committed) {
      this.#streamError(reading.error, whole);
      return;
    }
    if (whole.length === 0) return;
    // What was held back may have been content that was seen earlier.
    if (isContent || reading.events > 0) this.#commit();
    this.#owner.forward(whole);
  }

  #readDecoded(reading: AnswerReading, bytes: Buffer): void {
    if (this.#mode === 'over') return;
    const isContent = reading.feed(bytes);
    if (!reading.seesEvents) return;
    if (isContent) this.#lease.progress('content');
    reading.tellWritten();
  }

  #forward(bytes: Buffer): void {
    this.#commit();
    this.#owner.forward(bytes);
  }

  #commit(): void {
    if (this.#committed) return;
    this.#committed = true;
    this.#lease.committed();
  }

  #complete(trailers: RawHeaders): void {
    if (this.#mode === 'over') return;
    const error = this.#reading?.error;
    // The client need not wait until everything is counted.
    if (error === undefined) this.#owner.end(trailers);
    this.#reading?.finish();
    this.#mode = 'over';
    if (error === undefined) {
      const endsRun = this.#reading?.endsRun;
      this.#lease.end({ kind: 'ok', ...(endsRun === undefined ? {} : { endsRun }) });
      this.#owner.complete();
    } else {
      const verdict = this.#lease.end({ kind: 'error', headers: this.#headers, ...error });
      this.#owner.streamError(Buffer.alloc(0), verdict);
    }
  }

  /** The stream told of an error before anything but keep-alives was forwarded. */
  #streamError(error: StreamError, held: Buffer): void {
    const rest = this.#frames?.rest() ?? Buffer.alloc(0);
    this.#end();
    const verdict = this.#lease.end({ kind: 'error', headers: this.#headers, ...error });
    this.#owner.streamError(Buffer.concat([held, rest]), verdict);
  }

  // An error answer.

  #collectError(chunk: Buffer): void {
    this.#errorBody.push(chunk);
    this.#errorBytes += chunk.length;
    this.#lease.progress('content');
    if (this.#errorBytes > MAX_ERROR_BYTES) this.#fail('its error answer has no end');
  }

  #answeredWithError(): void {
    const answer = this.#answer as Answer;
    const body = Buffer.concat(this.#errorBody);
    this.#mode = 'over';
    const quotaExhausted = saysQuotaExhausted(body);
    const verdict =
      isUpstreamError(answer.status) || quotaExhausted
        ? this.#lease.end({ kind: 'error', status: answer.status, headers: this.#headers, quotaExhausted })
        : this.#lease.end({ kind: 'ok' });
    this.#owner.answeredWithError(answer, body, verdict);
  }

  // The end.

  #fail(reason: string): void {
    const clean = this.#clean();
    this.#end();
    const verdict = this.#lease.end({ kind: 'error', status: null });
    this.#owner.broke(reason, verdict, clean);
  }

  /** Whether what was forwarded ends with a whole event, or nothing was. */
  #clean(): boolean {
    if (!this.#committed) return true;
    return this.#frames !== undefined && !this.#frames.torn;
  }

  #end(): void {
    this.#mode = 'over';
    this.#decoded?.close();
    this.#controller?.abort(new Error('the turn is over'));
  }
}

/** The account has nothing left, in the words of either provider. */
function saysQuotaExhausted(body: Buffer): boolean {
  const text = body.toString('latin1');
  return text.includes('"insufficient_quota"') || text.includes('credit balance is too low');
}
