// SPDX-License-Identifier: Apache-2.0
import type { Lease, Usage } from '../scheduler/types.ts';
import type { TurnApi } from './routes.ts';
import { runEndOf } from './run-end.ts';
import { StreamObserver } from './stream-observer.ts';
import { usageOf } from './usage.ts';

/** A whole response that is larger is not read for its tokens: 1 MB of text is 250,000 of them. */
const MAX_JSON_BYTES = 2 * 1024 * 1024;
/** How often the scheduler is told what a stream has written: a thousandth of a small account's minute. */
const TELL_TOKENS = 50;

/** What answers of the turn's model hold: see OutputEstimator. */
export interface WrittenTokens {
  estimate(characters: number): number | undefined;
  learn(characters: number, tokens: number): void;
}

export interface ReadingParts {
  readonly api: TurnApi;
  readonly isStream: boolean;
  readonly written: WrittenTokens;
  readonly lease: Lease;
  /** The API's own word. */
  readonly onUsage: (usage: Usage) => void;
}

/** A response, read beside its way to the client for what it says of itself: its tokens, an error, the end of its run. */
export class AnswerReading {
  readonly #parts: ReadingParts;
  /** Undefined for a whole response. */
  #observer: StreamObserver | undefined;
  /** A whole response so far. */
  #whole: Buffer[] = [];
  #wholeBytes = 0;
  #wholeEndsRun: boolean | undefined;
  /** The estimate of what was written when the scheduler was told last, by it or by the API. */
  #toldTokens = 0;
  /** By the API's own word. */
  #outputTokens: number | undefined;

  constructor(parts: ReadingParts) {
    this.#parts = parts;
    if (parts.isStream) this.#observer = new StreamObserver(parts.api, (usage) => this.#usage(usage));
  }

  /** Whether it can tell content from keep-alives. */
  get seesEvents(): boolean {
    return this.#observer !== undefined;
  }

  /** Of the stream so far, keep-alives not counted. */
  get events(): number {
    return this.#observer?.events ?? 0;
  }

  /** That the stream told of. */
  get error(): StreamObserver['error'] {
    return this.#observer?.error;
  }

  /** Whether it is the agent's answer to its user, as far as it tells; of a whole response once that is finished. */
  get endsRun(): boolean | undefined {
    return this.#observer?.endsRun ?? this.#wholeEndsRun;
  }

  /** Takes what has come, not compressed. @returns whether it is content; what tells no events is. */
  feed(bytes: Buffer): boolean {
    if (this.#observer !== undefined) return this.#observer.feed(bytes) === 'content';
    this.#keep(bytes);
    return true;
  }

  /** Tells the scheduler what the stream has written so far, if that is worth telling. */
  tellWritten(): void {
    if (this.#observer === undefined) return;
    const outputTokens = this.#parts.written.estimate(this.#observer.characters) ?? 0;
    if (outputTokens < this.#toldTokens + TELL_TOKENS) return;
    this.#toldTokens = outputTokens;
    this.#parts.lease.usage({ outputTokens });
  }

  /** The stream cannot be read any more, only passed on. */
  giveUp(): void {
    this.#observer = undefined;
  }

  /** All of it has come. */
  finish(): void {
    if (this.#whole.length > 0) this.#readWhole();
    if (this.#observer === undefined || this.error !== undefined || this.#outputTokens === undefined) return;
    this.#parts.written.learn(this.#observer.characters, this.#outputTokens);
  }

  #keep(chunk: Buffer): void {
    if (this.#wholeBytes > MAX_JSON_BYTES) return;
    this.#wholeBytes += chunk.length;
    if (this.#wholeBytes > MAX_JSON_BYTES) this.#whole = [];
    else this.#whole.push(chunk);
  }

  #readWhole(): void {
    const { api } = this.#parts;
    let parsed: unknown;
    try {
      parsed = JSON.parse(Buffer.concat(this.#whole).toString());
    } catch {
      return;
    }
    const usage = usageOf(api, parsed);
    if (usage !== null) this.#usage(usage);
    this.#wholeEndsRun = runEndOf(api, parsed);
  }

  #usage(usage: Usage): void {
    const { lease, onUsage, written } = this.#parts;
    lease.usage(usage);
    if (usage.outputTokens !== undefined) {
      this.#outputTokens = usage.outputTokens;
      this.#toldTokens = written.estimate(this.#observer?.characters ?? 0) ?? 0;
    }
    onUsage(usage);
  }
}
