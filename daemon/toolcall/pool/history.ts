// SPDX-License-Identifier: Apache-2.0
import {
  BASELINE_MS,
  firstPatience,
  nextPatience,
  type Patience,
  takenOfLate,
  usualBytes,
} from '../../policy/patience.ts';
import type { Call } from '../call.ts';

/** What is asked of a call. */
type Looked = Pick<Call, 'frozenSinceMs' | 'frozenFor'> & {
  readonly cgroup: Pick<Call['cgroup'], 'heldBytes'>;
};

interface Seen {
  /** What growth is measured against. */
  readonly baseline: { readonly usageBytes: number; readonly heldBytes: number; readonly atMs: number };
  readonly last: { readonly heldBytes: number; readonly atMs: number };
  /** What it usually holds; undefined after the first look, when nothing is known of that. */
  readonly usualBytes: number | undefined;
  readonly grewAtMs: number;
  readonly takenBytes: number;
}

export interface Growth {
  /** Since the baseline, 0 while it is frozen. */
  readonly grownBytes: number;
  /** When it was last seen to grow. */
  readonly grewAtMs: number;
}

/** What each call did at the looks before: how it grew, and how it got on with being frozen. */
export class PoolHistory {
  #seen = new WeakMap<Looked, Seen>();
  readonly #patience = new WeakMap<Looked, Patience>();

  /** Growth of what cannot be reclaimed. memory.stat is read only of calls whose usage has changed. */
  look(call: Looked, usageBytes: number, nowMs: number): Growth {
    const before = this.#seen.get(call);
    if (call.frozenSinceMs !== undefined) return { grownBytes: 0, grewAtMs: before?.grewAtMs ?? 0 };
    if (before === undefined) {
      const heldBytes = call.cgroup.heldBytes();
      const last = { heldBytes, atMs: nowMs };
      const baseline = { ...last, usageBytes };
      this.#seen.set(call, { baseline, last, usualBytes: undefined, grewAtMs: 0, takenBytes: 0 });
      return { grownBytes: 0, grewAtMs: 0 };
    }
    const { baseline, last } = before;
    const same = baseline.usageBytes === usageBytes;
    const heldBytes = same ? baseline.heldBytes : call.cgroup.heldBytes();
    const grownBytes = Math.max(0, heldBytes - baseline.heldBytes);
    const grewAtMs = grownBytes > 0 ? nowMs : before.grewAtMs;
    const stale = grownBytes === 0 || nowMs - baseline.atMs >= BASELINE_MS;
    this.#seen.set(call, {
      baseline: stale ? { usageBytes, heldBytes, atMs: nowMs } : baseline,
      last: { heldBytes, atMs: nowMs },
      usualBytes: usualBytes(before.usualBytes ?? last.heldBytes, heldBytes, nowMs - last.atMs),
      grewAtMs,
      takenBytes: takenOfLate(before.takenBytes, heldBytes - last.heldBytes, nowMs - last.atMs),
    });
    return { grownBytes, grewAtMs };
  }

  /** The pool has memory to spare: what calls take until it has not is nobody's growth at one look. */
  forgetGrowth(): void {
    this.#seen = new WeakMap();
  }

  /** One that is frozen wants more; one that was not looked at yet may. */
  wantsBytes(call: Looked): number {
    return call.frozenSinceMs === undefined ? (this.#seen.get(call)?.takenBytes ?? Infinity) : Infinity;
  }

  /** By how much it holds more than usual; of one that was not looked at twice since it goes on that is not known. */
  risenBytes(call: Looked): number {
    const seen = call.frozenSinceMs === undefined ? this.#seen.get(call) : undefined;
    return seen?.usualBytes === undefined ? Infinity : seen.last.heldBytes - seen.usualBytes;
  }

  /** Without what can be reclaimed, at the last look since it goes on. */
  heldBytes(call: Looked): number | undefined {
    return this.#seen.get(call)?.last.heldBytes;
  }

  /** @param leastMs of a freeze. */
  patience(call: Looked, leastMs: number): Patience {
    const before = this.#patience.get(call);
    const frozenSinceMs = call.frozenFor === 'pool' ? call.frozenSinceMs : undefined;
    if (frozenSinceMs === undefined) return before ?? firstPatience(0, leastMs);
    if (before?.frozenSinceMs === frozenSinceMs) return before;
    const patience = nextPatience(before, frozenSinceMs, leastMs);
    this.#patience.set(call, patience);
    return patience;
  }

  /** It goes on: what it does now is compared with what it has now. */
  goesOn(call: Looked, nowMs: number): void {
    this.#seen.delete(call);
    const patience = this.#patience.get(call);
    if (patience !== undefined) this.#patience.set(call, { ...patience, wentOnAtMs: nowMs });
  }
}
