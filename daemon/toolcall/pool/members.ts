// SPDX-License-Identifier: Apache-2.0
import type { Claimant, Grant } from '../../policy/pool-lines.ts';
import type { PoolMember } from '../../policy/shortage-types.ts';
import { type Call, isDying } from '../call.ts';
import { PoolHistory } from './history.ts';
import { SessionHoldings } from './holdings.ts';

export interface PoolMembersDeps {
  readonly calls: () => Iterable<Call>;
  readonly usageBytes: (call: Call) => number;
  /** Whether somebody outside waits for a file lock that this frozen call holds. */
  readonly blocksOthers: (call: Call) => boolean;
}

export type Member = PoolMember & { readonly call: Call };

interface Granted {
  readonly grant: Grant;
  /** The freeze that it ended. */
  readonly frozenSinceMs: number | undefined;
  readonly heldBytes: number;
}

/** Calls as the policy sees them: what they did at the looks before, and what they were granted. */
export class PoolMembers {
  readonly #deps: PoolMembersDeps;
  readonly #history = new PoolHistory();
  readonly #holdings = new SessionHoldings();
  #grants = new WeakMap<Call, Granted>();

  constructor(deps: PoolMembersDeps) {
    this.#deps = deps;
  }

  /**
   * Looks at each call.
   * @param leastMs of a freeze.
   */
  look(leastMs: number, nowMs: number): Member[] {
    this.#holdings.forget();
    const members: Member[] = [];
    for (const call of this.#deps.calls()) {
      const growth = this.#history.look(call, this.#deps.usageBytes(call), nowMs);
      members.push({
        ...this.#claimant(call),
        call,
        ...growth,
        patience: this.#history.patience(call, leastMs),
        // Of interest in a last resort only, and dear.
        get freeableBytes() {
          return freeableBytes(call);
        },
        frozenSinceMs: call.frozenFor === 'pool' ? call.frozenSinceMs : undefined,
        held: call.frozenFor === 'line',
        passUntilMs: call.passUntilMs,
        blocksOthers: this.#deps.blocksOthers(call),
        killed: call.killCode !== undefined,
        dying: isDying(call, nowMs),
      });
    }
    return members;
  }

  /** What their lines depend on, as the last look found it. */
  claimants(): (Claimant & { readonly call: Call })[] {
    return [...this.#deps.calls()].map((call) => ({ ...this.#claimant(call), call }));
  }

  /** A frozen call is about to go on, with a grant or in its turn. */
  goesOn(call: Call, grant: Grant | undefined, nowMs: number): void {
    if (grant === undefined) this.#grants.delete(call);
    else {
      const heldBytes = call.cgroup.heldBytes();
      this.#grants.set(call, { grant, frozenSinceMs: call.frozenSinceMs, heldBytes });
    }
    this.#history.goesOn(call, nowMs);
  }

  /** There is no shortage: nothing is granted any more, and what calls take until the next is nobody's growth. */
  relax(): void {
    this.#grants = new WeakMap();
    this.#history.forgetGrowth();
    this.#holdings.forget();
  }

  #claimant(call: Call): Claimant {
    const { limits, phase, startedAtMs, sessionCgroup } = call;
    return {
      class: limits.class,
      leftover: phase === 'lingering',
      startedAtMs,
      wantsBytes: this.#history.wantsBytes(call),
      risenBytes: this.#history.risenBytes(call),
      grant: this.#grantOf(call),
      guarantee: this.#holdings.of(sessionCgroup),
    };
  }

  #grantOf(call: Call): Grant | undefined {
    const granted = this.#grants.get(call);
    if (granted === undefined) return undefined;
    const { frozenSinceMs } = call;
    if (frozenSinceMs !== undefined && frozenSinceMs !== granted.frozenSinceMs) {
      this.#grants.delete(call);
      return undefined;
    }
    if (granted.grant.kind !== 'try') return granted.grant;
    const grownBytes = (this.#history.heldBytes(call) ?? granted.heldBytes) - granted.heldBytes;
    return { kind: 'try', growBytes: granted.grant.growBytes - grownBytes };
  }
}

/** What a kill frees beyond the session's guarantee: files on tmpfs stay charged to who is left. */
function freeableBytes({ cgroup, sessionCgroup }: Call): number {
  return Math.max(0, (cgroup.memoryStat().get('anon') ?? 0) - sessionCgroup.guaranteedBytes);
}
