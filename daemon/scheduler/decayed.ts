// SPDX-License-Identifier: Apache-2.0

/** A sum whose parts count for half after each half-life. */
export class DecayedSum {
  readonly #halfLifeMs: number;
  #sum = 0;
  #atMs = 0;

  constructor(halfLifeMs: number) {
    this.#halfLifeMs = halfLifeMs;
  }

  add(amount: number, nowMs: number): void {
    this.#sum = this.value(nowMs) + amount;
    this.#atMs = nowMs;
  }

  value(nowMs: number): number {
    return this.#sum === 0 ? 0 : this.#sum * 2 ** ((this.#atMs - nowMs) / this.#halfLifeMs);
  }
}

/**
 * A mean in which each new value has the same weight, and older ones count the less the older they are; the first
 * values count alike.
 */
export class DecayedMean {
  readonly #weight: number;
  #mean: number;
  #deviation: number;
  #count = 1;

  /** @param start counts as the first value. */
  constructor(start: number, weight: number) {
    this.#weight = weight;
    this.#mean = start;
    this.#deviation = start * EXPONENTIAL_DEVIATION;
  }

  get value(): number {
    return this.#mean;
  }

  /** A mean deviation more than the mean: what a single value stays below in five cases of six. */
  get upper(): number {
    return this.#mean + this.#deviation;
  }

  /** The part of a value that the mean would rise by. */
  get nextWeight(): number {
    return Math.max(this.#weight, 1 / (this.#count + 1));
  }

  add(value: number): void {
    const weight = this.nextWeight;
    this.#count += 1;
    this.#deviation += weight * (Math.abs(value - this.#mean) - this.#deviation);
    this.#mean += weight * (value - this.#mean);
  }

  restore(value: number): void {
    this.#mean = value;
    this.#deviation = value * EXPONENTIAL_DEVIATION;
    // It was the mean of many.
    this.#count = Math.ceil(1 / this.#weight);
  }
}

/** Mean deviation of what is distributed exponentially, over its mean: 2/e. */
const EXPONENTIAL_DEVIATION = 2 / Math.E;
