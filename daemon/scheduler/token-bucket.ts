// SPDX-License-Identifier: Apache-2.0

const MINUTE_MS = 60_000;
/** Used amounts are kept by the second: a minute's sum is off by what one second holds. */
const SLOT_MS = 1_000;
const SLOTS = MINUTE_MS / SLOT_MS + 1;

/**
 * One rate limit of one upstream: a bucket that refills evenly and holds a minute's worth, and the sum of the
 * last minute beside it. The bucket alone would allow up to twice the limit in the minute after a pause, which
 * limits by the minute do not forgive; the sum alone knows nothing of what others use of the same account.
 *
 * Amounts are reserved before a turn is sent, and released when it is known what it used. What is reserved is not
 * available, and no reservation outlives its turn: `reserved` is 0 when nothing runs.
 */
export class TokenBucket {
  #limitPerMin: number;
  /** Settled; may fall below 0 when turns use more than was reserved for them. */
  #level: number;
  #levelAtMs: number;
  #reserved = 0;
  readonly #slots = new Float64Array(SLOTS);
  /** The slot's number since the start of time, of the newest slot. */
  #slot: number;
  #usedInMinute = 0;
  #learnedAtMs = Number.NEGATIVE_INFINITY;

  /** @param available what is in it, if it is not full. */
  constructor(limitPerMin: number, nowMs: number, available = limitPerMin) {
    this.#limitPerMin = limitPerMin;
    this.#level = Math.min(available, limitPerMin);
    this.#levelAtMs = nowMs;
    this.#slot = Math.floor(nowMs / SLOT_MS);
  }

  get limitPerMin(): number {
    return this.#limitPerMin;
  }

  get reserved(): number {
    return this.#reserved;
  }

  /** What could be reserved now; below 0 if too much was used. */
  available(nowMs: number): number {
    this.#advance(nowMs);
    return Math.min(this.#level, this.#limitPerMin - this.#usedInMinute) - this.#reserved;
  }

  /**
   * How long until so much can be reserved, 0 if it can now.
   * @param keep what must be left over.
   * @returns Infinity while it depends on reservations that are still to be settled.
   */
  waitMs(amount: number, keep: number, nowMs: number): number {
    // A turn larger than the limit is sent when everything is there: it would wait for ever.
    const need = Math.min(amount + keep, this.#limitPerMin);
    if (this.available(nowMs) >= need) return 0;
    if (this.#reserved + need > this.#limitPerMin) return Number.POSITIVE_INFINITY;
    const missing = need + this.#reserved - this.#level;
    const refillMs = missing <= 0 ? 0 : (missing * MINUTE_MS) / this.#limitPerMin;
    return Math.max(refillMs, this.#windowWaitMs(need + this.#reserved, nowMs), 1);
  }

  reserve(amount: number): void {
    this.#reserved += amount;
  }

  /** Gives back what was reserved. */
  release(amount: number): void {
    this.#reserved -= amount;
    // Sums of fractions may end a hair off 0.
    if (Math.abs(this.#reserved) < 1e-6) this.#reserved = 0;
  }

  /** Something was used, reserved or not. */
  use(amount: number, nowMs: number): void {
    this.#advance(nowMs);
    this.#use(amount, amount);
  }

  /**
   * Less was used than was counted.
   * @param countedAtMs what the upstream has told since then is right already.
   */
  refund(amount: number, countedAtMs: number, nowMs: number): void {
    this.#advance(nowMs);
    this.#use(this.#learnedAtMs >= countedAtMs ? 0 : -amount, -amount);
  }

  /** The upstream's own word. @param remaining null: it only told the limit. */
  learn(limitPerMin: number, remaining: number | null, nowMs: number): void {
    this.#advance(nowMs);
    // Half a bucket stays half a bucket when the limit turns out to be another.
    this.#level *= limitPerMin / this.#limitPerMin;
    this.#limitPerMin = limitPerMin;
    if (remaining === null) return;
    // It includes what others use of the account; what is only reserved here it has not seen yet.
    this.#level = remaining;
    this.#learnedAtMs = nowMs;
  }

  #use(ofLevel: number, ofMinute: number): void {
    this.#level = Math.min(this.#limitPerMin, this.#level - ofLevel);
    this.#usedInMinute = Math.max(0, this.#usedInMinute + ofMinute);
    const index = this.#slot % SLOTS;
    this.#slots[index] = (this.#slots[index] ?? 0) + ofMinute;
  }

  #advance(nowMs: number): void {
    const passedMs = nowMs - this.#levelAtMs;
    if (passedMs > 0) {
      this.#level = Math.min(this.#limitPerMin, this.#level + (passedMs * this.#limitPerMin) / MINUTE_MS);
      this.#levelAtMs = nowMs;
    }
    const slot = Math.floor(nowMs / SLOT_MS);
    const steps = Math.min(slot - this.#slot, SLOTS);
    for (let step = 1; step <= steps; step += 1) {
      const index = (this.#slot + step) % SLOTS;
      this.#usedInMinute -= this.#slots[index] ?? 0;
      this.#slots[index] = 0;
    }
    if (steps > 0) this.#slot = slot;
    if (steps === SLOTS) this.#usedInMinute = 0;
  }

  /** Until the last minute's sum leaves room for so much. */
  #windowWaitMs(need: number, nowMs: number): number {
    let used = this.#usedInMinute;
    for (let age = SLOTS - 1; age >= 0 && used > this.#limitPerMin - need; age -= 1) {
      used -= this.#slots[(this.#slot + SLOTS - age) % SLOTS] ?? 0;
      // The slot of that age is dropped when it is SLOTS old.
      if (used <= this.#limitPerMin - need) return (this.#slot - age + SLOTS) * SLOT_MS - nowMs;
    }
    return 0;
  }
}
