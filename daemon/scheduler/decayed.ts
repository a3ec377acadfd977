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

/** A mean in which each new value has the same weight, and older ones count the less the older they are. */
export class DecayedMean {
  readonly #weight: number;
  #mean: number;

  constructor(start: number, weight: number) {
    this.#mean = start;
    this.#weight = weight;
  }

  get value(): number {
    return this.#mean;
  }

  add(value: number): void {
    this.#mean += this.#weight * (value - this.#mean);
  }

  restore(value: number): void {
    this.#mean = value;
  }
}
