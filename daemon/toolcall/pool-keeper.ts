// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import { nowMs } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { errnoOf } from '../errors.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import type { Enforcer } from '../kernel/enforcer.ts';
import { files } from '../kernel/files.ts';
import type { HostMemory } from '../kernel/host.ts';
import { blockedLocks } from '../kernel/locks.ts';
import type { Native, Watch } from '../kernel/native.ts';
import { cgroupPathOf } from '../kernel/proc.ts';
import type { PoolSettings } from '../policy/pool.ts';
import {
  byPrecedence,
  type Claimant,
  type Grant,
  type LineUse,
  lowestLine,
  poolLines,
} from '../policy/pool-lines.ts';
import {
  awakeBytes,
  decideShortage,
  isExhausted,
  nearShortage,
  type PoolMember,
  type PoolUse,
} from '../policy/shortage.ts';
import type { Call } from './call.ts';
import { cgroupNumber } from './limit-files.ts';
import { PoolHistory } from './pool-history.ts';

/**
 * How often the calls are looked at while the pool is nearly used up: a look is a few reads, and the lines are 10 MiB a GiB
 * apart, which one core fills in some milliseconds.
 */
const NEAR_MS = 10;

/** Room on the host that is worth going over the budget for: what one task charges in a few milliseconds. */
const LEAST_OVER_BYTES = 16 * 1024 * 1024;

/** Next to nothing: a dozen tasks may each have 256 KiB under way. */
const LEAST_GROWTH_BYTES = 4 * 1024 * 1024;

/** /proc/locks lists every lock of the host; it matters only to who is frozen, for some milliseconds. */
const LOCKS_MS = 100;

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

interface Granted {
  readonly grant: Grant;
  /** The freeze that it ended. */
  readonly frozenSinceMs: number | undefined;
  readonly heldBytes: number;
}

type Member = PoolMember & { readonly call: Call };

/**
 * Shares the pool out among all calls: freezes who grows while it is short, in the order of the policy, and lets them
 * go on. The kernel stops at the tripwire what grows faster than this looks.
 */
export class PoolKeeper {
  readonly #deps: PoolKeeperDeps;
  readonly #history = new PoolHistory();
  #grants = new WeakMap<Call, Granted>();
  #timer: NodeJS.Timeout | undefined;
  #tripwireBytes: number | undefined;
  #exhaustedSinceMs: number | undefined;
  #writing = false;
  /** As the last look found it. */
  #near = false;
  #overBytes = 0;
  /** Of the calls that there are; infinite where nobody could make room for another. */
  #lowestLineBytes = Infinity;
  #blockers: ReadonlySet<Call> = new Set();
  #locksAtMs = 0;
  #closed = false;
  #events: { readonly fd: number; readonly watch: Watch } | undefined;

  constructor(deps: PoolKeeperDeps) {
    this.#deps = deps;
    this.#setTripwire(this.budgetBytes(), 0, 0);
    this.#watchTripwire();
  }

  /** Whether a call is frozen to make room for others. */
  get short(): boolean {
    for (const call of this.#deps.calls()) if (call.frozenFor === 'pool') return true;
    return false;
  }

  /** What the pool can be used to, less what a limit of the root itself leaves. */
  budgetBytes(): number {
    return this.#within(this.#fenceBytes());
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
      const usedBytes = this.#readRoot(files.memoryCurrent) ?? 0;
      this.#tell({ usedBytes, budgetBytes, overBytes: this.#overBytes }, nowMs());
      // While it is short the next look knows where the tripwire has to be.
      if (this.#near || this.short) this.#lookSoon(0);
      else if (lowest !== this.#lowestLineBytes) this.#setTripwire(budgetBytes, 0, 0);
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
      if (now - this.#locksAtMs >= LOCKS_MS) this.#findBlockers(now);
      this.#near = this.#look(now);
      if (this.#near) this.#lookSoon(NEAR_MS);
    } catch (error) {
      this.#deps.onError(error);
    }
  }

  /** Takes the tripwire away: a daemon that is gone could not let anybody go on. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#events?.watch.close();
    if (this.#events !== undefined) closeSync(this.#events.fd);
    // At once: its directory is closed soon. Raising does not reclaim.
    this.#tripwireBytes = Infinity;
    try {
      this.#deps.root.write(files.memoryHigh, cgroupNumber(Infinity));
    } catch (error) {
      this.#deps.onError(error);
    }
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
    const currentBytes = this.#readRoot(files.memoryCurrent) ?? 0;
    const { keepAvailableBytes } = this.#deps.poolSettings();
    const availableBytes = this.#deps.hostMemory().availableBytes - keepAvailableBytes;
    const maxBytes = this.#readRoot(files.memoryMax) ?? Infinity;
    const fenceBytes = awakeBytes(maxBytes);
    const hostRoomBytes = Math.max(0, Math.min(availableBytes, fenceBytes - currentBytes));
    const ownBytes = this.#within(fenceBytes);
    // What others on the host take is not there for calls, whatever the budget says.
    const budgetBytes = Math.min(ownBytes, currentBytes + hostRoomBytes);
    if (!nearShortage({ usedBytes: currentBytes, budgetBytes }, shortage) && !this.short) {
      this.#exhaustedSinceMs = undefined;
      this.#overBytes = 0;
      this.#grants = new WeakMap();
      this.#history.forgetGrowth();
      this.#tell({ usedBytes: currentBytes, budgetBytes: ownBytes, overBytes: 0 }, now);
      this.#setTripwire(ownBytes, 0, 0);
      return false;
    }
    // What the kernel compares: it counts page cache too, and knows no other use of the host.
    const fenced = budgetBytes === fenceBytes && maxBytes !== Infinity;
    const overBytes = fenced ? (maxBytes - fenceBytes) / 2 : 0;
    this.#overBytes = overBytes;
    const raw = { usedBytes: currentBytes, budgetBytes: ownBytes, overBytes };
    // Nobody has to stop below the lowest line, however much of this is page cache.
    const over = currentBytes > lowestLine(budgetBytes, shortage);
    const usedBytes = over ? currentBytes - this.#deps.root.reclaimableBytes() : currentBytes;
    const members = this.#members(now);
    if (members.length === 0) {
      // What is in use then is left of calls that have gone, files on tmpfs for one: there is nobody to look at.
      this.#exhaustedSinceMs = undefined;
      return false;
    }
    const stopsAtCharge = this.#deps.enforcer.mode === 'bpf';
    const use: PoolUse = {
      usedBytes,
      budgetBytes,
      overBytes,
      hostRoomBytes,
      exhaustedSinceMs: undefined,
      stopsAtCharge,
      cornered: maxBytes - currentBytes < nextGrowth(members, stopsAtCharge),
    };
    // The first in order may go over the budget if the host can bear it: then nobody has to die for it.
    const exhausted = hostRoomBytes < LEAST_OVER_BYTES && isExhausted(members, use, now);
    this.#exhaustedSinceMs = exhausted ? (this.#exhaustedSinceMs ?? now) : undefined;
    const sinceMs = this.#exhaustedSinceMs;
    for (const action of decideShortage(members, { ...use, exhaustedSinceMs: sinceMs }, now, shortage)) {
      const { call } = action.member;
      if (action.action === 'freeze') this.#deps.freeze(call, action.reason);
      else if (action.action === 'kill') this.#deps.kill(call, action.reason);
      else {
        if (action.action === 'thaw') this.#grant(call, action.grant);
        else {
          call.passUntilMs = action.untilMs;
          this.#grants.delete(call);
        }
        this.#history.goesOn(call, now);
        this.#tell(raw, now);
        this.#deps.thaw(call, action.reason);
      }
    }
    this.#tell(raw, now);
    this.#setTripwire(ownBytes, currentBytes, hostRoomBytes);
    return true;
  }

  #members(now: number): Member[] {
    const { shortage } = this.#deps.config().pool;
    const members: Member[] = [];
    for (const call of this.#deps.calls()) {
      const growth = this.#history.look(call, this.#deps.usageBytes(call), now);
      members.push({
        ...this.#claimant(call),
        call,
        ...growth,
        patience: this.#history.patience(call, shortage.leastFreezeMs),
        // Of interest in a last resort only, and dear.
        get freeableBytes() {
          return freeableBytes(call);
        },
        frozenSinceMs: call.frozenFor === 'pool' ? call.frozenSinceMs : undefined,
        held: call.frozenFor === 'line',
        passUntilMs: call.passUntilMs,
        blocksOthers: this.#blockers.has(call),
        killed: call.killCode !== undefined,
      });
    }
    return members;
  }

  #claimant(call: Call): Claimant {
    const { limits, phase, startedAtMs } = call;
    return {
      class: limits.class,
      leftover: phase === 'lingering',
      startedAtMs,
      wantsBytes: this.#history.wantsBytes(call),
      grant: this.#grantOf(call),
    };
  }

  #grant(call: Call, grant: Grant): void {
    const heldBytes = this.#deps.usageBytes(call) - call.cgroup.reclaimableBytes();
    this.#grants.set(call, { grant, frozenSinceMs: call.frozenSinceMs, heldBytes });
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

  /** Gives each call its line, and tells the kernel of those that have changed. */
  #tell(use: LineUse, now: number): void {
    const { shortage } = this.#deps.config().pool;
    const members = [...this.#deps.calls()].map((call) => ({ ...this.#claimant(call), call }));
    const lines = poolLines(members, use, shortage);
    this.#lowestLineBytes = Math.min(...[...lines.values()].map(({ gradedBytes }) => gradedBytes));
    for (const [{ call }, line] of lines) {
      // The first in order has the whole budget.
      const free = line.bytes === Infinity || now < call.passUntilMs;
      const poolLineBytes = free ? 0 : Math.floor(line.bytes);
      if (call.poolLineBytes === poolLineBytes) continue;
      call.poolLineBytes = poolLineBytes;
      this.#deps.enforce(call);
    }
  }

  /** Calls in the freezer with a file lock for which somebody outside waits. */
  #findBlockers(now: number): void {
    this.#locksAtMs = now;
    const frozen = [...this.#deps.calls()].filter((call) => call.frozenSinceMs !== undefined);
    if (frozen.length === 0) {
      this.#blockers = new Set();
      return;
    }
    const callOf = (pid: number): Call | undefined => {
      const path = cgroupPathOf(pid);
      return frozen.find((call) => path === call.procPath || path?.startsWith(`${call.procPath}/`));
    };
    const blockers = new Set<Call>();
    for (const { holder, waiter } of blockedLocks()) {
      const call = callOf(holder);
      // Who waits in a frozen call waits for other things first.
      if (call !== undefined && callOf(waiter) === undefined) blockers.add(call);
    }
    this.#blockers = blockers;
  }

  /** The kernel says when the tripwire is reached, every 10 ms at most (CGROUP_FILE_NOTIFY_MIN_INTV). */
  #watchTripwire(): void {
    const { native, root } = this.#deps;
    try {
      const fd = native.openAt(root.fd, files.memoryEventsLocal, false);
      this.#events = { fd, watch: native.watch(fd, 'priority', () => this.#lookSoon(0)) };
    } catch (error) {
      // Looks come without it too, only later.
      this.#deps.onError(error);
    }
  }

  /** Whoever limits the root means its calls: they are to be stopped before that limit kills one. */
  #fenceBytes(): number {
    return awakeBytes(this.#readRoot(files.memoryMax) ?? Infinity);
  }

  #within(fenceBytes: number): number {
    return Math.min(this.#deps.poolSettings().budgetBytes, fenceBytes);
  }

  /**
   * The root's memory.high is at the lowest line of a call, where the kernel has to look who charges; for a call that
   * is alone it is near the budget. Who may go on beyond it would sleep there, so it follows the usage, a little behind; within the
   * budget, or what the host can bear.
   */
  #setTripwire(budgetBytes: number, currentBytes: number, hostRoomBytes: number): void {
    const awake = awakeBytes(budgetBytes);
    const most = hostRoomBytes >= LEAST_OVER_BYTES ? Infinity : awake;
    const behind = Math.min(currentBytes - (budgetBytes - awake) / 2, most);
    const least = Math.min(this.#lowestLineBytes, awake);
    const bytes = Math.floor(Math.max(least, behind));
    const near = (budgetBytes - awake) / 8;
    if (this.#tripwireBytes !== undefined && Math.abs(bytes - this.#tripwireBytes) <= near) return;
    this.#writeTripwire(bytes);
  }

  /** In the thread pool: lowering it reclaims. */
  #writeTripwire(bytes: number): void {
    this.#tripwireBytes = bytes;
    // One at a time: only the last one counts, and it must come last.
    if (this.#writing) return;
    this.#writing = true;
    this.#deps.root
      .writeOffThread(files.memoryHigh, cgroupNumber(bytes))
      .catch((error: unknown) => this.#deps.onError(error))
      .finally(() => {
        this.#writing = false;
        if (this.#tripwireBytes !== undefined && this.#tripwireBytes !== bytes) {
          this.#writeTripwire(this.#tripwireBytes);
        }
      });
  }

  /** Undefined where the root is the hierarchy's own, which has no such file. */
  #readRoot(file: string): number | undefined {
    try {
      return this.#deps.root.readNumber(file);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }
}

/** What may be charged until the next look and what it decides take effect: where lines hold, by the first alone. */
function nextGrowth(members: readonly Member[], stopsAtCharge: boolean): number {
  const growing = stopsAtCharge ? [...members].sort(byPrecedence).slice(0, 1) : members;
  const wanted = growing.reduce((sum, { wantsBytes }) => sum + (wantsBytes === Infinity ? 0 : wantsBytes), 0);
  return Math.min(Math.max(2 * wanted, LEAST_GROWTH_BYTES), LEAST_OVER_BYTES);
}

/** What a kill frees beyond the session's guarantee: files on tmpfs stay charged to who is left. */
function freeableBytes({ cgroup, sessionCgroup }: Call): number {
  return Math.max(0, (cgroup.memoryStat().get('anon') ?? 0) - sessionCgroup.guaranteedBytes);
}
