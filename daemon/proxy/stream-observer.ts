// SPDX-License-Identifier: Apache-2.0
import { createParser, type EventSourceMessage, type EventSourceParser } from 'eventsource-parser';
import type { Usage } from '../scheduler/types.ts';
import type { TurnApi } from './routes.ts';
import { runEndOf } from './run-end.ts';
import { usageOf } from './usage.ts';

/** An event is at most some hundred KiB; what grows beyond is no event stream. */
const MAX_BUFFERED_CHARACTERS = 4 * 1024 * 1024;

/** Events that keep a connection alive and say nothing. */
const KEEP_ALIVES = new Set(['ping', 'keepalive']);
/** Events that tell of tokens, or of the end; the many others are not parsed. */
const TELLING = new Set([
  'message_start',
  'message_delta',
  'response.completed',
  'response.failed',
  'response.incomplete',
  'error',
]);
/** The same where events have no names. */
const TELLING_DATA = ['"usage":{', '"usage": {', '"finish_reason":"', '"finish_reason": "'];
const LAST = new Set(['message_stop', 'response.completed', 'response.failed', 'response.incomplete']);

/** The statuses that errors within a stream stand for, by their type or code. */
const ERROR_STATUS: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  authentication_error: 401,
  permission_error: 403,
  not_found_error: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  rate_limit_exceeded: 429,
  insufficient_quota: 429,
  timeout_error: 504,
  overloaded_error: 529,
};

export interface StreamError {
  readonly status: number;
  readonly quotaExhausted: boolean;
}

/** What a piece of the stream held. */
export type Seen = 'content' | 'ping' | 'nothing';

/** Reads a decoded copy of an event stream for progress, tokens, errors and the end. */
export class StreamObserver {
  readonly #api: TurnApi;
  readonly #onUsage: (usage: Usage) => void;
  readonly #parser: EventSourceParser;
  readonly #decoder = new TextDecoder();
  #contentEvents = 0;
  #characters = 0;
  #pings = 0;
  #blind = false;
  #error: StreamError | undefined;
  #complete = false;
  #endsRun: boolean | undefined;

  constructor(api: TurnApi, onUsage: (usage: Usage) => void) {
    this.#api = api;
    this.#onUsage = onUsage;
    this.#parser = createParser({
      onEvent: (event) => this.#event(event),
      onComment: () => {
        this.#pings += 1;
      },
      onError: ({ type }) => {
        if (type === 'max-buffer-size-exceeded') this.#blind = true;
      },
      maxBufferSize: MAX_BUFFERED_CHARACTERS,
    });
  }

  /** Events other than keep-alives so far. */
  get events(): number {
    return this.#contentEvents;
  }

  /** Of the data of those events. */
  get characters(): number {
    return this.#characters;
  }

  /** The error that the stream itself told of. */
  get error(): StreamError | undefined {
    return this.#error;
  }

  /** The event came that ends every complete stream of this API. */
  get complete(): boolean {
    return this.#complete;
  }

  /** Whether it is the agent's answer to its user; undefined: it has not told. */
  get endsRun(): boolean | undefined {
    return this.#endsRun;
  }

  feed(bytes: Buffer): Seen {
    // What cannot be understood counts as content: nobody is reaped because we cannot read.
    if (this.#blind) return 'content';
    const content = this.#contentEvents;
    const pings = this.#pings;
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }));
    if (this.#contentEvents > content || this.#blind) return 'content';
    return this.#pings > pings ? 'ping' : 'nothing';
  }

  #event({ event, data }: EventSourceMessage): void {
    if (event !== undefined && KEEP_ALIVES.has(event)) {
      this.#pings += 1;
      return;
    }
    this.#contentEvents += 1;
    this.#characters += data.length;
    if (this.#api === 'chat' ? data === '[DONE]' : event !== undefined && LAST.has(event))
      this.#complete = true;
    if (!this.#tells(event, data)) return;
    let parsed: unknown;
    try {
      parsed = JSON.parse(data);
    } catch {
      return;
    }
    const usage = usageOf(this.#api, parsed);
    if (usage !== null) this.#onUsage(usage);
    this.#error ??= errorOf(event, parsed);
    this.#endsRun = runEndOf(this.#api, parsed) ?? this.#endsRun;
  }

  #tells(event: string | undefined, data: string): boolean {
    if (event !== undefined) return TELLING.has(event);
    return TELLING_DATA.some((part) => data.includes(part)) || data.startsWith('{"error"');
  }
}

function errorOf(event: string | undefined, parsed: unknown): StreamError | undefined {
  if (!isObject(parsed)) return undefined;
  const { error, type } = parsed;
  if (event !== 'error' && type !== 'error' && !isObject(error)) return undefined;
  // The Responses API puts code and message beside the type, the others into `error`.
  const about = isObject(error) ? error : parsed;
  const words = [about.code, about.type].filter((word) => typeof word === 'string');
  const known = words.map((word) => ERROR_STATUS[word]).find((status) => status !== undefined);
  return { status: known ?? 500, quotaExhausted: words.includes('insufficient_quota') };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
