// SPDX-License-Identifier: Apache-2.0
import { RecentMap } from '../scheduler/recent-map.ts';
import type { JsonScan } from './json-scan.ts';

/** English, code and JSON have about four bytes a token in every tokenizer of the field. */
const BYTES_PER_TOKEN = 4;
/** Tokens of an image at the size to which the APIs scale it down. */
const OPAQUE_TOKENS = 1600;
/** Weight of the newest turn: the share that a cache serves changes within a few turns of a run. */
const NEWEST = 0.5;
/** Sessions and agents that are remembered; one costs some hundred bytes. */
const MAX_REMEMBERED = 4096;

/**
 * Estimates the input tokens of a turn that count towards rate limits from the size of its body, and
 * learns from what its response told: most of a session's input comes from a cache that does not count.
 * Tokenizing 166,000 tokens takes 28 ms; a reservation need not be that exact, it is settled afterwards.
 */
export class InputEstimator {
  /** Counted tokens to estimated ones. */
  readonly #ratios = new RecentMap<string, number>(MAX_REMEMBERED, () => {});

  /** @param who the session and agent, within one credential and model class */
  estimate(who: string, rawTokens: number): number {
    return Math.max(1, Math.round(rawTokens * (this.#ratios.peek(who) ?? 1)));
  }

  learn(who: string, rawTokens: number, countedTokens: number): void {
    if (rawTokens <= 0) return;
    const seen = countedTokens / rawTokens;
    const known = this.#ratios.peek(who);
    this.#ratios.set(who, known === undefined ? seen : known + (seen - known) * NEWEST);
  }
}

/** Weight of the newest answer: text, code and calls of tools take turns in a run. */
const NEWEST_ANSWER = 0.1;

/**
 * Estimates how many tokens of an answer have been written from the size of its events so far: the APIs tell that
 * only at the end, and a limit is passed by what is written until then.
 */
export class OutputEstimator {
  readonly #tokensPerCharacter = new RecentMap<string, number>(MAX_REMEMBERED, () => {});

  /** @returns undefined before an answer has told. */
  estimate(who: string, characters: number): number | undefined {
    const ratio = this.#tokensPerCharacter.peek(who);
    return ratio === undefined ? undefined : Math.round(characters * ratio);
  }

  learn(who: string, characters: number, tokens: number): void {
    if (characters <= 0) return;
    const seen = tokens / characters;
    const known = this.#tokensPerCharacter.peek(who);
    this.#tokensPerCharacter.set(who, known === undefined ? seen : known + (seen - known) * NEWEST_ANSWER);
  }
}

/** What a body would count without a cache. */
export function rawTokensOf(bodyBytes: number, { opaqueBytes, opaqueStrings }: JsonScan): number {
  return Math.ceil((bodyBytes - opaqueBytes) / BYTES_PER_TOKEN) + opaqueStrings * OPAQUE_TOKENS;
}
