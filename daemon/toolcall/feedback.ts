// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { nowMs } from '../clock.ts';

/** Characters of a command that tell it from others: the wrapper sends 16 KiB of a line, set-up and all. */
const COMPARED_CHARS = 4096;
/** A hook asks right after the end of its tool call, as soon as its agent comes to it. */
const KEPT_MS = 60_000;
/** Calls of 60 s at seventeen a second. */
const MAX_KEPT = 1024;

/**
 * What there was to tell of calls that have just ended, for hooks, which know their session and the text of their
 * command and nothing else. Of commands only a hash is kept.
 */
export class Feedback {
  readonly #lines = new Map<string, { readonly line: string; readonly endedMs: number }>();

  /** A call runs: what was said of an earlier one with the same command is not about this one. */
  started(key: string): void {
    this.#lines.delete(key);
  }

  ended(key: string, line: string): void {
    this.#lines.delete(key);
    this.#lines.set(key, { line, endedMs: nowMs() });
    const oldest = this.#lines.keys().next().value;
    if (this.#lines.size > MAX_KEPT && oldest !== undefined) this.#lines.delete(oldest);
  }

  /** The line of the last call with this key; undefined: nothing to tell, or it was too long ago. */
  of(key: string): string | undefined {
    const found = this.#lines.get(key);
    return found !== undefined && nowMs() - found.endedMs <= KEPT_MS ? found.line : undefined;
  }
}

/** @param session as the agent names it. */
export function feedbackKey(uid: number, session: string, command: string): string {
  const text = command.slice(0, COMPARED_CHARS).trim();
  return createHash('sha256').update(`${uid}\0${session}\0${text}`).digest('base64');
}
