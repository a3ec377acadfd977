// SPDX-License-Identifier: Apache-2.0
import type { ServerResponse } from 'node:http';
import type { Clock, Timer } from '../scheduler/clock.ts';
import type { HungEvidence } from '../scheduler/reaper.ts';
import type { Refusal } from '../scheduler/refusals.ts';
import type { Lease, Ticket, Turn, TurnScheduler, Usage, Verdict } from '../scheduler/types.ts';
import type { WrittenTokens } from './answer-reading.ts';
import { errorEvent, type ProxyError, pingEvent, retryHeaders } from './api-errors.ts';
import { type Answer, Attempt, type AttemptOwner } from './attempt.ts';
import { endWith, sendError, sendHead } from './client-response.ts';
import { headerOf, type RawHeaders, withHeader } from './headers.ts';
import type { Provider, TurnApi } from './routes.ts';
import type { Upstreams } from './upstream.ts';

/** How a turn ended, as the metrics count it. */
export const TURN_OUTCOMES = [
  'ok', // the upstream's whole response went to the client
  'error', // the upstream's own error did
  'failed', // the upstream could not be reached, or broke off
  'reaped', // it hung
  'refused', // it got no lane
  'aborted', // the client went
] as const;
export type TurnOutcome = (typeof TURN_OUTCOMES)[number];

export interface TurnReport {
  readonly outcome: TurnOutcome;
  readonly turn: Turn;
  readonly waitedMs: number;
  readonly usage: Usage;
}

/** A long queueing hidden from middleboxes that cut idle connections. */
export interface EarlyStream {
  readonly afterMs: number;
  readonly pingMs: number;
}

export interface TurnParts {
  readonly scheduler: TurnScheduler;
  readonly upstreams: Upstreams;
  readonly clock: Clock;
  /** Null: the client waits for the upstream's own head, however long. */
  readonly earlyStream: EarlyStream | null;
  readonly written: WrittenTokens;
  readonly onHung: (evidence: HungEvidence, verdict: Verdict) => void;
  /** Called once, when the turn is over for the client. */
  readonly onEnd: (report: TurnReport) => void;
}

export interface TurnRequest {
  readonly provider: Provider;
  readonly api: TurnApi;
  readonly target: string;
  readonly headers: string[];
  readonly body: Buffer;
}

/** One request of a client from the queue to the last byte of its response, over one or more attempts. */
export class TurnExchange implements AttemptOwner {
  readonly #parts: TurnParts;
  readonly #request: TurnRequest;
  readonly #response: ServerResponse;
  readonly #turn: Turn;
  #ticket: Ticket | undefined;
  #attempt: Attempt | undefined;
  #waitedMs = 0;
  #usage: Usage = {};
  #early: Timer | undefined;
  #over = false;

  constructor(parts: TurnParts, turn: Turn, request: TurnRequest, response: ServerResponse) {
    this.#parts = parts;
    this.#turn = turn;
    this.#request = request;
    this.#response = response;
  }

  start(): void {
    this.#response.on('close', this.#clientClosed).on('drain', this.#clientReads);
    const ticket = this.#parts.scheduler.submit(this.#turn, {
      onLease: (lease) => this.#send(lease),
      onRefused: (refusal) => this.#refused(refusal),
      onHung: (evidence, verdict) => this.#hung(evidence, verdict),
    });
    this.#ticket = ticket;
    if (this.#over) ticket.cancel();
    else if (this.#parts.earlyStream !== null && this.#turn.streaming)
      this.#startEarly(this.#parts.earlyStream);
  }

  // What an attempt says.

  /** Whether bytes of an attempt can follow what the client has. */
  canFollow(answer: Answer): boolean {
    if (!this.#response.headersSent) return true;
    return answer.status === 200 && answer.isStream && answer.encoding === null;
  }

  head(answer: Answer): void {
    this.#stopEarly();
    if (this.#response.headersSent) return;
    sendHead(this.#response, answer.status, answer.statusText, answer.headers);
    // The head goes out with the first bytes if they are here already.
    process.nextTick(() => this.#flushHead());
  }

  forward(bytes: Buffer): void {
    if (this.#over) return;
    if (!this.#response.write(bytes)) this.#attempt?.hold();
  }

  usage(usage: Usage): void {
    this.#usage = { ...this.#usage, ...usage };
  }

  end(trailers: RawHeaders): void {
    if (!this.#over) endWith(this.#response, trailers);
  }

  /** The response is complete and all of it was forwarded. */
  complete(): void {
    this.#finish('ok');
  }

  /** The upstream's own error, with the verdict on it, before anything of it was forwarded. */
  answeredWithError(answer: Answer, body: Buffer, verdict: Verdict): void {
    if (this.#retries(verdict)) return;
    const advice = verdict.action === 'fail' ? verdict : { shouldRetry: null, retryAfterMs: null };
    if (this.#response.headersSent) {
      this.#failStream({
        status: answer.status,
        message: messageIn(body) ?? `the API answered ${answer.status}`,
      });
    } else {
      let { headers } = answer;
      const added = retryHeaders({
        shouldRetry: advice.shouldRetry,
        retryAfterMs: headerOf(headers, 'retry-after') === undefined ? advice.retryAfterMs : null,
      });
      for (let at = 0; at + 1 < added.length; at += 2) {
        headers = withHeader(headers, added[at] as string, added[at + 1] as string);
      }
      sendHead(this.#response, answer.status, answer.statusText, headers);
      this.#response.write(body);
    }
    this.#finish('error');
  }

  /** The stream told of an error; its bytes are forwarded unless another attempt follows. */
  streamError(held: Buffer, verdict: Verdict): void {
    if (this.#retries(verdict)) return;
    if (held.length > 0) this.forward(held);
    this.#finish('error');
  }

  /** The upstream could not be reached or broke off. @param clean whether an event can follow what was forwarded */
  broke(reason: string, verdict: Verdict, clean: boolean): void {
    if (this.#retries(verdict)) return;
    const advice = verdict.action === 'fail' ? verdict : { shouldRetry: null, retryAfterMs: null };
    this.#fail(
      { status: 502, message: `the model API cannot be reached: ${reason}`, ...advice },
      'failed',
      clean,
    );
  }

  // What the scheduler says.

  #send(lease: Lease): void {
    this.#waitedMs = lease.waitedMs;
    if (this.#over) {
      lease.end({ kind: 'aborted' });
      return;
    }
    const attempt = new Attempt(this, lease, this.#request.api, this.#parts.written);
    this.#attempt = attempt;
    const { provider, target, headers, body } = this.#request;
    this.#parts.upstreams.dispatch(provider, { method: 'POST', target, headers, body }, attempt);
  }

  #refused(refusal: Refusal): void {
    if (this.#over) return;
    this.#fail(refusal, 'refused', true);
  }

  #hung(evidence: HungEvidence, verdict: Verdict): void {
    this.#parts.onHung(evidence, verdict);
    if (verdict.action === 'watch' || this.#over) return;
    const clean = this.#attempt?.abandon() ?? true;
    if (verdict.action === 'retry') return;
    const seconds = Math.round(evidence.silentMs / 1000);
    const advice = verdict.action === 'fail' ? verdict : { shouldRetry: null, retryAfterMs: null };
    const message = `the model API has been silent for ${seconds} s (${evidence.cause}); the turn was ended`;
    this.#fail({ status: 504, message, ...advice }, 'reaped', clean);
  }

  /** Another lease will come. */
  #retries(verdict: Verdict): boolean {
    return this.#over || verdict.action === 'retry';
  }

  // What the client does.

  readonly #clientClosed = (): void => {
    if (this.#over) return;
    this.#attempt?.abandon();
    this.#ticket?.cancel();
    this.#finish('aborted');
  };

  readonly #clientReads = (): void => this.#attempt?.go();

  // The end.

  #fail(error: ProxyError, outcome: TurnOutcome, clean: boolean): void {
    if (!this.#response.headersSent) {
      this.#stopEarly();
      sendError(this.#response, this.#request.provider, error);
    } else if (clean && this.#attempt?.streamsEvents !== false) {
      this.#failStream(error);
    } else {
      // Half of something went out: a connection that breaks is the only thing that says so.
      this.#response.destroy();
    }
    this.#finish(outcome);
  }

  #failStream(error: ProxyError): void {
    this.#response.write(errorEvent(this.#request.api, error, this.#attempt?.events ?? 0));
  }

  #finish(outcome: TurnOutcome): void {
    if (this.#over) return;
    this.#over = true;
    this.#stopEarly();
    this.#response.off('close', this.#clientClosed).off('drain', this.#clientReads);
    if (!this.#response.writableEnded && !this.#response.destroyed) this.#response.end();
    this.#parts.onEnd({ outcome, turn: this.#turn, waitedMs: this.#waitedMs, usage: this.#usage });
  }

  // Early streams.

  #startEarly({ afterMs, pingMs }: EarlyStream): void {
    const ping = (): void => {
      if (!this.#response.headersSent) {
        this.#response.writeHead(200, ['content-type', 'text/event-stream', 'cache-control', 'no-cache']);
      }
      // A client that does not read does not need to be kept.
      if (!this.#response.writableNeedDrain) this.#response.write(pingEvent(this.#request.api));
      this.#early = this.#parts.clock.setTimer(pingMs, ping);
    };
    if (!this.#response.headersSent) this.#early = this.#parts.clock.setTimer(afterMs, ping);
  }

  #stopEarly(): void {
    this.#early?.cancel();
    this.#early = undefined;
  }

  #flushHead(): void {
    if (!this.#over && !this.#response.destroyed) this.#response.flushHeaders();
  }
}

/** The message of an error response in any of the forms that the APIs have. */
function messageIn(body: Buffer): string | undefined {
  try {
    const parsed = JSON.parse(body.toString()) as { error?: { message?: unknown } } | null;
    const message = parsed?.error?.message;
    return typeof message === 'string' ? message : undefined;
  } catch {
    return undefined;
  }
}
