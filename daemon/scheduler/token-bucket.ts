// SPDX-License-Identifier: Apache-2.0

const MINUTE_MS = 60_000;
/** Used amounts are kept by the second: a minute's sum is off by what one second holds. */
const SLOT_MS = 1_000;
const SLOTS = MINUTE_MS / SLOT_MS + 1;
/** What may go at once although the limit is handed out evenly: turns end and are sent when they can, not to the second. */
const PACE_SLACK_MS = 2_000;

/**
 * One rate limit of one upstream: a bucket that refills evenly and holds a minute's worth, and the sum of the
 * last minute beside it. The bucket alone would allow up to twice the limit in the minute after a pause, which
 * limits by the minute do not forgive; the sum alone knows nothing of what others use of the same account.
 *
 * While turns wait for it, what there is goes out evenly. Without that a minute's worth would go in its first seconds
 * to whoever asks for most at once, before there is a queue that could be fair, and all would wait for the rest of it.
 *
 * The minute's sum is kept while the limit is not known yet as well: what was sent until the first answer counts.
 *
 * Amounts are reserved before a turn is sent, and released when it is known what it used. What is reserved is not
 * available, and no reservation outlives its turn: `reserved` is 0 when nothing runs.
 */
export class TokenBucket {
  #limitPerMin: number;
  /**
   * Settled; may fall below 0 when turns use more than was reserved for them, to a minute's worth and no further: an
   * upstream that named an absurd limit can only take it back in the answer to another turn.
   */
  #level: number;
  #levelAtMs: number;
  #reserved = 0;
  readonly #slots = new Float64Array(SLOTS);
  /** The slot's number since the start of time, of the newest slot. */
  #slot: number;
  #usedInMinute = 0;
  #learnedAtMs = Number.NEGATIVE_INFINITY;
  /** What may go now while it is handed out evenly, at most the slack; below 0 after a large turn. Null: it is not. */
  #pace: number | null = null;

  /**
   * @param limitPerMin Infinity: not known.
   * @param available what is in it, if it is not full.
   */
  constructor(limitPerMin: number, nowMs: number, available = limitPerMin) {
    this.#limitPerMin = limitPerMin;
    this.#level = this.#bounded(available);
    this.#levelAtMs = nowMs;
    this.#slot = Math.floor(nowMs / SLOT_MS);
  }

  get limitPerMin(): number {
    return this.#limitPerMin;
  }

  get reserved(): number {
    return this.#reserved;
  }

  /** What could be reserved now; below 0 if too much was used. Infinity while the limit is not known. */
  available(nowMs: number): number {
    this.#advance(nowMs);
    if (!this.#known) return Number.POSITIVE_INFINITY;
    return Math.min(this.#level, this.#limitPerMin - this.#usedInMinute) - this.#reserved;
  }

  /**
   * How long until so much can be reserved, 0 if it can now.
   * @param keep what must be left over.
   * @param evenly whether it is for a turn that waits for its part while it is handed out evenly.
   * @returns Infinity while it depends on reservations that are still to be settled.
   */
  waitMs(amount: number, keep: number, nowMs: number, evenly = true): number {
    if (!this.#known) return 0;
    // A turn larger than the limit is sent when everything is there: it would wait for ever.
    const need = Math.min(amount + keep, this.#limitPerMin);
    const available = this.available(nowMs);
    // Whatever its size: the next one waits the longer for it.
    const pace = evenly ? (this.#pace ?? 1) : 1;
    const paceMs = pace > 0 ? 0 : Math.max(1, this.#refillMs(-pace));
    if (available >= need) return paceMs;
    if (this.#reserved + need > this.#limitPerMin) return Number.POSITIVE_INFINITY;
    const refillMs = this.#refillMs(Math.max(0, need + this.#reserved - this.#level));
    return Math.max(refillMs, this.#windowWaitMs(need + this.#reserved, nowMs), paceMs, 1);
  }

  /** Turns wait for it: from now on it is handed out evenly. */
  pace(nowMs: number): void {
    this.#advance(nowMs);
    this.#pace ??= this.#slack;
  }

  /** Nobody waits any more: it is there for whoever comes. */
  relax(): void {
    this.#pace = null;
  }

  reserve(amount: number): void {
    this.#reserved += amount;
    this.#paceBy(-amount);
  }

  /** Gives back what was reserved. */
  release(amount: number): void {
    this.#reserved -= amount;
    this.#paceBy(amount);
    // Sums of fractions may end a hair off 0.
    if (Math.abs(this.#reserved) < 1e-6) this.#reserved = 0;
  }

  /** Something was used, reserved or not. */
  use(amount: number, nowMs: number): void {
    this.#advance(nowMs);
    this.#use(amount, amount, this.#slot);
  }

  /**
   * Less was used than was counted.
   * @param countedAtMs what the upstream has told since then is right already.
   */
  refund(amount: number, countedAtMs: number, nowMs: number): void {
    this.#advance(nowMs);
    const slot = Math.floor(countedAtMs / SLOT_MS);
    // Taken back from where it was counted, and not at all once that is over: else the minute would later be short of it.
    const ofMinute = this.#slot - slot < SLOTS ? -amount : 0;
    this.#use(this.#learnedAtMs >= countedAtMs ? 0 : -amount, ofMinute, slot);
  }

  /** The upstream's own word. @param remaining null: it only told the limit. */
  learn(limitPerMin: number, remaining: number | null, nowMs: number): void {
    this.#advance(nowMs);
    // Half a bucket stays half a bucket when the limit turns out to be another.
    if (this.#known) {
      const factor = limitPerMin / this.#limitPerMin;
      this.#level *= factor;
      if (this.#pace !== null) this.#pace *= factor;
    } else this.#level = limitPerMin;
    this.#limitPerMin = limitPerMin;
    if (remaining === null) return;
    // It includes what others use of the account; what is only reserved here it has not seen yet.
    this.#level = remaining;
    this.#learnedAtMs = nowMs;
  }

  get #known(): boolean {
    return this.#limitPerMin !== Number.POSITIVE_INFINITY;
  }

  #refillMs(amount: number): number {
    return (amount * MINUTE_MS) / this.#limitPerMin;
  }

  #use(ofLevel: number, ofMinute: number, slot: number): void {
    this.#paceBy(-ofMinute);
    if (this.#known) this.#level = this.#bounded(this.#level - ofLevel);
    this.#usedInMinute += ofMinute;
    const index = slot % SLOTS;
    this.#slots[index] = (this.#slots[index] ?? 0) + ofMinute;
  }

  #advance(nowMs: number): void {
    const passedMs = nowMs - this.#levelAtMs;
    if (passedMs > 0) {
      this.#levelAtMs = nowMs;
      if (this.#known) this.#refill((passedMs * this.#limitPerMin) / MINUTE_MS);
    }
    const slot = Math.floor(nowMs / SLOT_MS);
    const steps = Math.min(slot - this.#slot, SLOTS);
    if (steps <= 0) return;
    for (let step = 1; step <= steps; step += 1) this.#slots[(this.#slot + step) % SLOTS] = 0;
    this.#slot = slot;
    // Added up anew: fractions that are added and taken away would not end at 0.
    this.#usedInMinute = this.#slots.reduce((sum, amount) => sum + amount, 0);
  }

  #refill(amount: number): void {
    this.#level = this.#bounded(this.#level + amount);
    this.#paceBy(amount);
  }

  #bounded(level: number): number {
    return Math.max(-this.#limitPerMin, Math.min(this.#limitPerMin, level));
  }

  get #slack(): number {
    return (this.#limitPerMin * PACE_SLACK_MS) / MINUTE_MS;
  }

  /**
   * Not more than the slack: turns that were sent before it was handed out evenly give back what they never took. No
   * further below 0 than the level.
   */
  #paceBy(amount: number): void {
    if (this.#pace === null) return;
    this.#pace = Math.max(-this.#limitPerMin, Math.min(this.#slack, this.#pace + amount));
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
