// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../../clock.ts';
import type { Config } from '../../config/schema.ts';
import type { Cgroup } from '../../kernel/cgroup.ts';
import type { Enforcer } from '../../kernel/enforcer.ts';
import { files } from '../../kernel/files.ts';
import type { HostMemory } from '../../kernel/host.ts';
import type { Native } from '../../kernel/native.ts';
import { LEAST_OVER_BYTES, type PoolSettings } from '../../policy/pool.ts';
import { chargeLineBytes, type LineUse, lowestLine, mayGrow, poolLines } from '../../policy/pool-lines.ts';
import { awakeBytes, decideShortage, isCornered, isExhausted, nearShortage } from '../../policy/shortage.ts';
import type { PoolUse, ShortageAction } from '../../policy/shortage-types.ts';
import type { TripwireUse } from '../../policy/tripwire.ts';
import type { Call } from '../call.ts';
import { Blockers } from './blockers.ts';
import { type Member, PoolMembers } from './members.ts';
import { Thrashing } from './thrashing.ts';
import { PoolTripwire } from './tripwire.ts';

/**
 * How often the calls are looked at while the pool is nearly used up: a look is a few reads, and the lines are 10 MiB a GiB
 * apart, which one core fills in some milliseconds.
 */
const NEAR_MS = 10;

/** Reclaim takes 64 pages at a time, for each of a dozen tasks at once. */
const HELD_BELOW_BYTES = 4 * 1024 * 1024;

/** What the tripwire follows while the pool is short, when it is not. */
const AMPLE = { currentBytes: 0, hostRoomBytes: 0, thrashes: false } as const;

/** Before the pool is nearly used up nobody needs more than its budget. */
const NOTHING_BEYOND = { overBytes: 0, hostRoomBytes: 0 } as const;

export interface PoolKeeperDeps {
  readonly native: Native;
  readonly enforcer: Pick<Enforcer, 'mode'>;
  /** Of all calls: its memory.high is the pool's tripwire. */
  readonly root: Cgroup;
  readonly config: () => Config;
  readonly poolSettings: () => PoolSettings;
  readonly hostMemory: () => HostMemory;
  readonly calls: () => Iterable<Call>;
  readonly usageBytes: (call: Call) => number;
  readonly freeze: (call: Call, reason: string) => void;
  readonly thaw: (call: Call, reason: string) => void;
  readonly kill: (call: Call, reason: string) => void;
  /** `call.poolLineBytes` has changed: the kernel has to know. */
  readonly enforce: (call: Call) => void;
  readonly onError: (error: unknown) => void;
}

/** What the root and the host say at one look, in bytes. */
interface Measured {
  /** What all calls use, page cache too. */
  readonly currentBytes: number;
  /** The limit on all calls. */
  readonly maxBytes: number;
  /** Up to where nobody sleeps before that limit. */
  readonly fenceBytes: number;
  readonly hostRoomBytes: number;
  /** The pool's budget, less what a limit of the root leaves. */
  readonly ownBytes: number;
  /** Less what others on the host take, which is not there for calls, whatever the budget says. */
  readonly budgetBytes: number;
}

/**
 * Shares the pool out among all calls: freezes who grows while it is short, in the order of the policy, and lets them
 * go on. The kernel stops at the tripwire what grows faster than this looks.
 */
export class PoolKeeper {
  readonly #deps: PoolKeeperDeps;
  readonly #tripwire: PoolTripwire;
  readonly #blockers: Blockers;
  readonly #members: PoolMembers;
  readonly #thrashing = new Thrashing();
  #timer: NodeJS.Timeout | undefined;
  #exhaustedSinceMs: number | undefined;
  /** As the last look found it. */
  #near = false;
  #beyond: Pick<LineUse, 'overBytes' | 'hostRoomBytes'> = NOTHING_BEYOND;
  /** Of the calls that there are; infinite where nobody could make room for another. */
  #lowestLineBytes = Infinity;
  /** Of those that grow, above what is in use. */
  #nextLineBytes = Infinity;
  #closed = false;

  constructor(deps: PoolKeeperDeps) {
    this.#deps = deps;
    this.#blockers = new Blockers(deps.calls);
    this.#members = new PoolMembers({
      calls: deps.calls,
      usageBytes: deps.usageBytes,
      blocksOthers: (call) => this.blocksOthers(call),
    });
    this.#tripwire = new PoolTripwire(deps);
    this.#setTripwire(this.budgetBytes());
    this.#tripwire.watch(() => this.#lookSoon(0));
  }

  /** Whether a call is frozen to make room for others. */
  get short(): boolean {
    for (const call of this.#deps.calls()) if (call.frozenFor === 'pool') return true;
    return false;
  }

  /** What the pool can be used to, less what a limit of the root itself leaves. */
  budgetBytes(): number {
    return this.#within(awakeBytes(this.#maxBytes()));
  }

  /** Whether a task outside waits for a file lock that this frozen call holds. */
  blocksOthers(call: Call): boolean {
    return this.#blockers.has(call);
  }

  /** A call has come, gone or changed its place, or was stopped by the kernel for the pool. */
  changed(): void {
    if (this.#closed) return;
    try {
      const budgetBytes = this.budgetBytes();
      const lowest = this.#lowestLineBytes;
      const usedBytes = this.#currentBytes();
      this.#tell({ usedBytes, budgetBytes, ...this.#beyond }, nowMs());
      // While it is short the next look knows where the tripwire has to be.
      if (this.#near || this.short) this.#lookSoon(0);
      else if (lowest !== this.#lowestLineBytes) this.#setTripwire(budgetBytes);
    } catch (error) {
      this.#deps.onError(error);
    }
  }

  /** Looks at everything, and again soon as long as the pool is nearly used up. */
  look(now: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    try {
      this.#blockers.look(now);
      this.#near = this.#look(now);
      if (this.#near) this.#lookSoon(NEAR_MS);
    } catch (error) {
      this.#deps.onError(error);
    }
  }

  /** Takes the tripwire away too. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#tripwire.close();
  }

  #lookSoon(delayMs: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.look(nowMs()), delayMs);
    this.#timer.unref();
  }

  /** @returns whether to look again soon. */
  #look(now: number): boolean {
    const { shortage } = this.#deps.config().pool;
    const measured = this.#measure();
    const { currentBytes, ownBytes, budgetBytes } = measured;
    if (!nearShortage({ usedBytes: currentBytes, budgetBytes }, shortage) && !this.short) {
      this.#exhaustedSinceMs = undefined;
      this.#beyond = NOTHING_BEYOND;
      this.#members.relax();
      this.#thrashing.forget();
      this.#tell({ usedBytes: currentBytes, budgetBytes: ownBytes, ...NOTHING_BEYOND }, now);
      this.#setTripwire(ownBytes);
      return false;
    }
    // The first in order wants it.
    const over = this.#exhaustedSinceMs === undefined ? overBytes(measured) : 0;
    this.#beyond = { overBytes: over, hostRoomBytes: measured.hostRoomBytes };
    const usedBytes = this.#usedBytes(measured, now);
    const members = this.#members.look(shortage.leastFreezeMs, now);
    if (members.length === 0) {
      // What is in use then is left of calls that have gone, files on tmpfs for one: there is nobody to look at.
      this.#exhaustedSinceMs = undefined;
      return false;
    }
    const use = this.#useOf(usedBytes, members, measured, now);
    // What the kernel compares: it counts page cache too, and knows no other use of the host.
    const raw = { usedBytes: currentBytes, budgetBytes: ownBytes, ...this.#beyond };
    for (const action of decideShortage(members, use, now, shortage)) this.#act(action, raw, now);
    this.#tell(raw, now);
    this.#setTripwire(ownBytes, { ...measured, thrashes: this.#thrashing.lately(now) });
    return true;
  }

  #measure(): Measured {
    const currentBytes = this.#currentBytes();
    const { keepAvailableBytes } = this.#deps.poolSettings();
    const availableBytes = this.#deps.hostMemory().availableBytes - keepAvailableBytes;
    const maxBytes = this.#maxBytes();
    const fenceBytes = awakeBytes(maxBytes);
    const hostRoomBytes = Math.max(0, Math.min(availableBytes, fenceBytes - currentBytes));
    const ownBytes = this.#within(fenceBytes);
    const budgetBytes = Math.min(ownBytes, currentBytes + hostRoomBytes);
    return { currentBytes, maxBytes, fenceBytes, hostRoomBytes, ownBytes, budgetBytes };
  }

  /** Without page cache that can be reclaimed, where that matters. */
  #usedBytes({ currentBytes, budgetBytes }: Measured, now: number): number {
    // Nobody has to stop below the lowest line, however much of this is page cache. What is held there is a little below.
    const line = lowestLine(budgetBytes, this.#deps.config().pool.shortage);
    if (currentBytes <= line - HELD_BELOW_BYTES) return currentBytes;
    const { reclaimableBytes, refaultedPages } = this.#deps.root.pageCache();
    this.#thrashing.look(refaultedPages, now);
    return currentBytes - reclaimableBytes;
  }

  /** What the policy is to know of the pool; takes down since when it is used up. */
  #useOf(usedBytes: number, members: readonly Member[], measured: Measured, now: number): PoolUse {
    const { currentBytes, maxBytes, hostRoomBytes, budgetBytes } = measured;
    const stopsAtCharge = this.#deps.enforcer.mode === 'bpf';
    // The first in order may go over the budget if the host can bear it: then nobody has to die for it.
    const exhausted =
      hostRoomBytes < LEAST_OVER_BYTES && isExhausted(members, { usedBytes, budgetBytes }, now);
    this.#exhaustedSinceMs = exhausted ? (this.#exhaustedSinceMs ?? now) : undefined;
    const exhaustedMs = now - (this.#exhaustedSinceMs ?? now);
    return {
      usedBytes,
      budgetBytes,
      ...this.#beyond,
      exhaustedSinceMs: this.#exhaustedSinceMs,
      stopsAtCharge,
      cornered: isCornered(members, maxBytes - currentBytes, exhaustedMs, stopsAtCharge),
    };
  }

  #act(action: ShortageAction<Member>, use: LineUse, now: number): void {
    const { call } = action.member;
    if (action.action === 'freeze') this.#deps.freeze(call, action.reason);
    else if (action.action === 'kill') this.#deps.kill(call, action.reason);
    else {
      if (action.action === 'pass') {
        call.passUntilMs = action.untilMs;
        call.passLineBytes = use.usedBytes + action.growBytes;
      }
      this.#members.goesOn(call, action.action === 'thaw' ? action.grant : undefined, now);
      this.#tell(use, now);
      this.#deps.thaw(call, action.reason);
    }
  }

  /** Gives each call its line, and tells the kernel of those that have changed. */
  #tell(use: LineUse, now: number): void {
    const lines = poolLines(this.#members.claimants(), use, this.#deps.config().pool.shortage);
    this.#lowestLineBytes = Math.min(...[...lines.values()].map(({ gradedBytes }) => gradedBytes));
    this.#nextLineBytes = Infinity;
    for (const [claimant, line] of lines) {
      const { call } = claimant;
      const passBytes = now < call.passUntilMs ? call.passLineBytes : 0;
      const bytes = Math.max(line.bytes, passBytes);
      const holds = bytes > use.usedBytes && call.frozenSinceMs === undefined && mayGrow(claimant);
      if (holds) this.#nextLineBytes = Math.min(this.#nextLineBytes, bytes);
      call.poolLineBytes = finite(bytes);
      if (this.#deps.enforcer.mode !== 'bpf') continue;
      const before = call.chargeLineBytes;
      call.chargeLineBytes = finite(
        Math.max(chargeLineBytes(claimant, line, use.usedBytes, before), passBytes),
      );
      if (call.chargeLineBytes !== before) this.#deps.enforce(call);
    }
  }

  /** @param use while the pool is short. */
  #setTripwire(
    budgetBytes: number,
    use: Pick<TripwireUse, 'currentBytes' | 'hostRoomBytes' | 'thrashes'> = AMPLE,
  ): void {
    const { currentBytes, hostRoomBytes, thrashes } = use;
    const lines = { lowestLineBytes: this.#lowestLineBytes, nextLineBytes: this.#nextLineBytes };
    this.#tripwire.set({ budgetBytes, currentBytes, hostRoomBytes, thrashes, ...lines });
  }

  /** Whoever limits the root means its calls: they are to be stopped before that limit kills one. */
  #within(fenceBytes: number): number {
    return Math.min(this.#deps.poolSettings().budgetBytes, fenceBytes);
  }

  #currentBytes(): number {
    return this.#deps.root.numberIfAny(files.memoryCurrent) ?? 0;
  }

  #maxBytes(): number {
    return this.#deps.root.numberIfAny(files.memoryMax) ?? Infinity;
  }
}

/** The first in order has the whole budget: 0, which is no line. */
function finite(lineBytes: number): number {
  return lineBytes === Infinity ? 0 : Math.floor(lineBytes);
}

/** What one that is stuck may have beyond the budget: half of what is left to a limit on all calls, if that is the budget. */
function overBytes({ maxBytes, fenceBytes, budgetBytes }: Measured): number {
  const fenced = budgetBytes === fenceBytes && maxBytes !== Infinity;
  return fenced ? (maxBytes - fenceBytes) / 2 : 0;
}
