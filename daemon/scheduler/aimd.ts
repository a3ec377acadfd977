// SPDX-License-Identifier: Apache-2.0
import type { LaneSettings } from './settings.ts';

/**
 * How many turns an upstream bears at once: one more after some clean answers, half after it turned one away
 * (additive increase, multiplicative decrease; Chiu and Jain 1989).
 */
export class LaneLimit {
  #settings: LaneSettings;
  #limit: number;
  #clean = 0;
  #noCutBeforeMs = Number.NEGATIVE_INFINITY;

  constructor(settings: LaneSettings) {
    this.#settings = settings;
    this.#limit = settings.fixed ?? settings.start;
  }

  get limit(): number {
    return this.#limit;
  }

  /** Other settings. What was learned stays, within them; nothing was while the limit is where it started. */
  configure(settings: LaneSettings): void {
    const { fixed, start } = this.#settings;
    const learned = fixed === null && this.#limit !== start;
    this.#settings = settings;
    this.#limit = settings.fixed ?? (learned ? Math.min(this.#limit, settings.most) : settings.start);
  }

  /** A limit as it was saved. */
  restore(limit: number): void {
    const { fixed, least, most } = this.#settings;
    if (fixed === null) this.#limit = Math.min(most, Math.max(least, Math.floor(limit)));
  }

  /** @param held lanes while it ran, itself included. */
  completed(held: number): void {
    const { fixed, most, raiseAfter, raiseWhenUsed } = this.#settings;
    if (fixed !== null || held < this.#limit * raiseWhenUsed) return;
    this.#clean += 1;
    if (this.#clean < raiseAfter) return;
    this.#clean = 0;
    this.#limit = Math.min(most, this.#limit + 1);
  }

  /** The upstream answered 429 or 529. @param pauseMs until it may be asked again. */
  turnedAway(nowMs: number, pauseMs: number): void {
    const { fixed, least, cutTo, cutEveryMs } = this.#settings;
    this.#clean = 0;
    if (fixed !== null || nowMs < this.#noCutBeforeMs) return;
    this.#limit = Math.max(least, Math.floor(this.#limit * cutTo));
    this.#noCutBeforeMs = nowMs + Math.max(cutEveryMs, pauseMs);
  }
}
