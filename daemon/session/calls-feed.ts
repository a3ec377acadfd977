// SPDX-License-Identifier: Apache-2.0

import type { CallsMessage } from '../core/messages.ts';
import type { CallsOfSession } from '../scheduler/types.ts';

/** What of a call the other half needs to know. */
export interface FedCall {
  /** {@link sessionKey} of its session. */
  readonly session: string;
  /** Its shell has not ended. What it left behind keeps no run alive. */
  readonly live: boolean;
  readonly frozen: boolean;
}

export interface FeedSources {
  /** Every call there is. */
  readonly calls: () => Iterable<FedCall>;
  /** Sessions that live, with or without calls. */
  readonly sessions: () => Iterable<string>;
  /** @returns whether it is on its way. */
  readonly send: (message: CallsMessage) => boolean;
}

/** In one message, so that a line stays far below the longest. */
const BATCH = 512;

/** Tells the core what is known of each session's tool calls, and only what has changed. */
export class CallsFeed {
  readonly #sources: FeedSources;
  #told = new Map<string, CallsOfSession>();

  constructor(sources: FeedSources) {
    this.#sources = sources;
  }

  /** The core has been started again and knows nothing. */
  forget(): void {
    this.#told = new Map();
  }

  /** Looks and tells. What cannot be sent is told the next time. */
  tell(): void {
    const now = new Map<string, CallsOfSession>();
    for (const session of this.#sources.sessions()) now.set(session, NONE);
    for (const { session, live, frozen } of this.#sources.calls()) {
      if (!live) continue;
      const sum = now.get(session) ?? NONE;
      now.set(session, { live: sum.live + 1, frozen: sum.frozen + (frozen ? 1 : 0) });
    }
    const changed: [string, CallsOfSession | null][] = [];
    for (const [session, calls] of now) {
      const told = this.#told.get(session);
      if (told?.live !== calls.live || told.frozen !== calls.frozen) changed.push([session, calls]);
    }
    for (const session of this.#told.keys()) if (!now.has(session)) changed.push([session, null]);
    for (let at = 0; at < changed.length; at += BATCH) {
      const batch = changed.slice(at, at + BATCH);
      if (!this.#sources.send(batch)) return;
      for (const [session, calls] of batch) {
        if (calls === null) this.#told.delete(session);
        else this.#told.set(session, calls);
      }
    }
  }
}

const NONE: CallsOfSession = { live: 0, frozen: 0 };
