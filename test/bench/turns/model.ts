// SPDX-License-Identifier: Apache-2.0
import { setTimeout as delay } from 'node:timers/promises';
import { encodeEvent, messageEvents } from '../../clients/anthropic-events.ts';
import {
  type Answer,
  JSON_HEADERS,
  type Received,
  type Script,
  STREAM_HEADERS,
  StandIn,
  type Step,
} from '../../proxy/upstream.ts';
import type { Account } from './account.ts';

/** Models write in pieces; ten a second are as many as matter here. */
const PIECE_MS = 100;
export const MODEL = 'claude-sonnet-4-20250514';

/** One model API for all experiments: each has accounts of its own there, known by their keys. */
export class Models {
  readonly #scripts = new Map<string, Script>();
  readonly #standIn = new StandIn((request, index) => {
    const script = this.#scripts.get(keyOf(request));
    return script?.(request, index) ?? failure(401, 'authentication_error');
  });

  get url(): string {
    return this.#standIn.url;
  }

  /** What becomes of requests with this key. */
  serve(key: string, script: Script): void {
    this.#scripts.set(key, script);
  }

  listen(): Promise<void> {
    return this.#standIn.listen();
  }

  close(): Promise<void> {
    return this.#standIn.close();
  }
}

function keyOf({ headers }: Received): string {
  return headers.authorization?.replace(/^Bearer /, '') ?? `${headers['x-api-key']}`;
}

export interface Writing {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly tokensPerS: number;
  /** Called as they are written. */
  readonly onWrite?: (tokens: number) => void;
}

/** A stream of the Messages API, written as fast as the model writes. */
export async function* writing({
  inputTokens,
  outputTokens,
  tokensPerS,
  onWrite,
}: Writing): AsyncGenerator<Step> {
  const [opening, closing] = frame(inputTokens, outputTokens);
  yield opening;
  const perPiece = Math.max(1, (tokensPerS * PIECE_MS) / 1000);
  let due = 0;
  for (let left = outputTokens; left > 0; ) {
    await delay((1000 * perPiece) / tokensPerS);
    due += perPiece;
    const piece = Math.min(left, Math.floor(due));
    due -= piece;
    left -= piece;
    onWrite?.(piece);
    yield words(piece);
  }
  yield closing;
}

/** A piece of so many tokens. */
export function words(tokens: number): string {
  const delta = { type: 'text_delta', text: 'word'.repeat(tokens) };
  return encodeEvent({
    event: 'content_block_delta',
    data: { type: 'content_block_delta', index: 0, delta },
  });
}

/** What comes before the words of an answer, and after them. */
export function frame(
  inputTokens: number,
  outputTokens: number,
): readonly [opening: string, closing: string] {
  const content = [{ type: 'text' as const, text: '' }];
  const events = messageEvents({ id: 'msg_1', model: MODEL, content, inputTokens, outputTokens });
  const end = events.findIndex(({ event }) => event === 'content_block_stop');
  const text = events.map(encodeEvent);
  return [text.slice(0, end).join(''), text.slice(end).join('')];
}

export function stream(steps: Answer['steps'], headers: readonly string[] = []): Answer {
  return { headers: [...STREAM_HEADERS, ...headers], steps };
}

export function failure(status: number, type: string, headers: readonly string[] = []): Answer {
  const body = JSON.stringify({ type: 'error', error: { type, message: type } });
  return { status, headers: [...JSON_HEADERS, ...headers], steps: [body] };
}

/** An account that serves what it has room for. */
export function limited(account: Account, write: (request: Received) => Writing): Script {
  return (request) => {
    const one = write(request);
    const waitMs = account.admit(one.inputTokens);
    if (waitMs > 0) {
      const retryAfter = ['retry-after', `${Math.ceil(waitMs / 1000)}`];
      return failure(429, 'rate_limit_error', [...account.headers(), ...retryAfter]);
    }
    const onWrite = (tokens: number): void => account.use('outputTokens', tokens);
    return stream(writing({ ...one, onWrite }), account.headers());
  };
}

/** The body of a turn. @param text what its user says */
export function body(text: string, more: object = {}): string {
  const messages = [{ role: 'user', content: text }];
  return JSON.stringify({ model: MODEL, max_tokens: 8_192, stream: true, messages, ...more });
}
