// SPDX-License-Identifier: Apache-2.0
// A turn whose silences are looked at, as its client and its model see it.
import type { readAll } from '../../proxy/lab.ts';
import { JSON_HEADERS, type Received } from '../../proxy/upstream.ts';
import type { Core } from './core.ts';
import { body, type Models } from './model.ts';

export const SECOND_MS = 1_000;
/** As Anthropic sends them. */
export const PING_MS = 10 * SECOND_MS;
export const PING = 'event: ping\ndata: {"type": "ping"}\n\n';
export const TOKENS = 50;

export interface Context {
  readonly models: Models;
  readonly core: Core;
  readonly copies: number;
}

export interface Asking {
  /** Members of the body. */
  readonly more?: object;
  /** How long the client waits for an answer that is not streamed, as the SDKs say. */
  readonly clientS?: number;
}

export function asked(key: string, at: number, { more = {}, clientS = 600 }: Asking = {}) {
  return {
    path: '/v1/messages',
    headers: {
      'content-type': 'application/json',
      'anthropic-version': '2023-06-01',
      'x-api-key': key,
      'x-claude-code-session-id': sessionOf(key, at),
      'x-stainless-timeout': `${clientS}`,
    },
    body: body(`turn of ${key} ${at}`, more),
  };
}

function sessionOf(key: string, at: number): string {
  return `${key.replaceAll(/[^a-z0-9]+/g, '-')}-${at}`;
}

export function isWhole({
  status,
  complete,
  headers,
  body: bytes,
}: Awaited<ReturnType<typeof readAll>>): boolean {
  if (status !== 200 || !complete) return false;
  return (
    headers['content-type'] === JSON_HEADERS[1] ||
    (bytes.includes('message_stop') && !bytes.includes('event: error'))
  );
}

/** What became of the requests of one account, as the model saw it. */
export class Watch {
  requests = 0;
  readonly #over: Promise<boolean>[] = [];

  request({ over }: Received): void {
    this.requests += 1;
    this.#over.push(over);
  }

  /** How many of them were closed before their answers had ended. */
  async cut(): Promise<number> {
    const whole = await Promise.all(this.#over);
    return whole.filter((ended) => !ended).length;
  }
}
