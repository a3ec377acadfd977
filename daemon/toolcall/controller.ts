// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { errnoOf, messageOf } from '../errors.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import type { Enforcer, StopEvent } from '../kernel/enforcer.ts';
import { files } from '../kernel/files.ts';
import type { Freezer } from '../kernel/freezer.ts';
import type { HostMemory } from '../kernel/host.ts';
import type { Native } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import {
  decideAhead,
  decideFrozen,
  decideGiveBack,
  decideThrottled,
  decideTimeout,
  type HeldCall,
  isNearHigh,
  type KillCode,
} from '../policy/decide.ts';
import type { Lines } from '../policy/lines.ts';
import { type Pool, type PoolSettings, poolState, poolUpTo } from '../policy/pool.ts';
import type { Call } from './call.ts';
import { cgroupNumber } from './limit-files.ts';
import { PoolKeeper } from './pool-keeper.ts';
import { saveCall } from './saved-state.ts';

/**
 * How often calls are looked at for what no event tells: pool room for a frozen call, a call that is
 * throttled without reaching its line, lent memory that is no longer used, timeouts. Bursts last 1 to
 * 3 s, and a look costs no system call for a call below memory.high.
 */
const TICK_MS = 100;

/**
 * After a thaw a program may still stop itself, because it saw its child stopped (su, runuser, nsenter
 * do). It does so as soon as it runs, so a few ticks of looking are enough.
 */
const AFTERCARE_MS = 2000;

/** Over this long the CPU use of a throttled call is averaged; cpu.stat is flushed every 2 s at worst. */
const CPU_SAMPLE_MS = 2000;

/**
 * From here on it matters how much of a call's usage is page cache. Below, reading memory.stat, the
 * dearest of the cgroup files at some 7 us, would tell of too little.
 */
const LARGE_BYTES = 32 * 1024 * 1024;

export interface ControllerDeps {
  readonly native: Native;
  readonly root: Cgroup;
  readonly enforcer: Enforcer;
  readonly freezer: Freezer;
  readonly config: () => Config;
  readonly poolSettings: () => PoolSettings;
  readonly hostMemory: () => HostMemory;
  readonly log: Log;
  readonly emit: (kind: string, call: Call, detail?: object) => void;
}

/** Holds live calls to their limits: carries out what the policy decides about them. */
export class Controller {
  readonly #deps: ControllerDeps;
  readonly #calls = new Map<number, Call>();
  readonly #aftercare = new Map<Call, number>();
  readonly #keeper: PoolKeeper;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: ControllerDeps) {
    this.#deps = deps;
    this.#keeper = new PoolKeeper({
      ...deps,
      // A container's calls share out what the container has.
      calls: () =>
        [...this.#calls.values()].filter(({ sessionCgroup }) => sessionCgroup.root.cgroup === deps.root),
      usageBytes: (call) => this.usageBytes(call),
      freeze: (call, reason) =>
        this.#guarded(call, () => this.#freeze(call, 'pool', reason, this.usageBytes(call))),
      thaw: (call, reason) => this.#guarded(call, () => this.#letGo(call, reason)),
      kill: (call, reason) => this.kill(call, 'host-memory', reason),
      enforce: (call) => this.#guarded(call, () => this.#enforce(call)),
      onError: (error) => deps.log.error({ err: error }, 'pool not under control'),
    });
  }

  /** Begins to enforce a call's lines. */
  add(call: Call): void {
    this.#calls.set(call.cgroup.id, call);
    this.#enforce(call);
    this.#keeper.changed();
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref();
  }

  /** Stops looking after a call; its cgroup may be removed afterwards. */
  remove(call: Call): void {
    this.#calls.delete(call.cgroup.id);
    this.#aftercare.delete(call);
    this.#deps.enforcer.forget(call.cgroup);
    this.#keeper.changed();
    if (this.#calls.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  find(cgroupId: number): Call | undefined {
    return this.#calls.get(cgroupId);
  }

  get size(): number {
    return this.#calls.size;
  }

  /** Whether calls are frozen to make room for others. */
  get short(): boolean {
    return this.#keeper.short;
  }

  /** A call's shell has ended, or its class is another: it comes elsewhere in the order for the pool. */
  reordered(): void {
    this.#keeper.changed();
  }

  /** What the pool has, from one look at the host and at every call. */
  pool(): Pool {
    const calls = [...this.#calls.values()].map((call) => {
      const usageBytes = this.usageBytes(call);
      return {
        usageBytes,
        reclaimableBytes: usageBytes < LARGE_BYTES ? 0 : call.cgroup.reclaimableBytes(),
        highBytes: call.lines.memoryHighBytes,
        freezeLineBytes: call.lines.freezeLineBytes,
        declaredHighBytes: call.limits.memoryHighBytes,
      };
    });
    return poolState({ memAvailableBytes: this.#deps.hostMemory().availableBytes }, calls, {
      ...this.#deps.poolSettings(),
      budgetBytes: this.#keeper.budgetBytes(),
    });
  }

  usageBytes(call: Call): number {
    try {
      return this.#deps.enforcer.usageBytes(call.cgroup);
    } catch (error) {
      // Removed under us: it holds nothing any more.
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENODEV') return 0;
      throw error;
    }
  }

  /** The kernel says that a call is over its line, has used up its throttle budget, or must make room. */
  onStop(event: StopEvent): void {
    const call = this.#calls.get(event.cgroupId);
    if (call === undefined || call.frozenSinceMs !== undefined || call.killCode !== undefined) return;
    this.#guarded(call, () => {
      const reason = STOP_REASONS[event.reason];
      call.stoppedAtNs = event.timeNs;
      this.#freeze(call, event.reason === 'pool' ? 'pool' : 'line', reason, event.usageBytes);
      this.#deps.emit('stop', call, {
        reason: event.reason,
        pid: event.pid,
        comm: event.comm,
        usageBytes: event.usageBytes,
        signalled: event.signalled,
      });
      if (event.reason === 'pool') this.#keeper.changed();
      else this.#decide(call);
    });
  }

  /** A call that an earlier daemon left: relaxed if that stopped, perhaps frozen if it died. */
  onFound(call: Call, frozen: boolean): void {
    call.cgroup
      .writeOffThread(files.memoryHigh, cgroupNumber(call.lines.memoryHighBytes))
      .catch((error: unknown) => this.#report(call, error));
    if (!frozen) return;
    this.#guarded(call, () => {
      this.#freeze(call, 'line', 'found frozen', this.usageBytes(call));
      this.#decide(call);
    });
  }

  /** Ends all of a call's processes, frozen or not. */
  kill(call: Call, code: KillCode, reason: string): void {
    if (call.killCode !== undefined) return;
    call.killCode = code;
    this.#guarded(call, () => {
      const usageBytes = this.usageBytes(call);
      call.cgroup.write(files.kill, '1');
      call.record({ action: 'kill', reason, usageBytes }, nowMs());
      this.#deps.emit('kill', call, { code, reason, usageBytes });
      this.#deps.log.warn({ call: call.id, code, reason, usageBytes }, 'call killed');
      saveCall(call, nowMs());
    });
  }

  /** Lets a call go on without the throttle: a daemon that is gone could not decide about it. */
  release(call: Call): void {
    this.#guarded(call, () => {
      call.cgroup.write(files.memoryHigh, 'max');
      if (call.frozenSinceMs !== undefined) this.#thaw(call, 'daemon stops');
    });
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#keeper.close();
  }

  #tick(): void {
    const now = nowMs();
    let pool: Pool | undefined;
    for (const call of this.#calls.values()) {
      if (call.killCode !== undefined) continue;
      this.#guarded(call, () => {
        if (this.#timedOut(call, now)) return;
        if (call.frozenFor === 'pool') return;
        if (call.frozenSinceMs !== undefined) {
          pool = undefined;
          this.#decide(call);
          return;
        }
        const usageBytes = this.usageBytes(call);
        const grownBytes = usageBytes - call.usageAtTickBytes;
        call.usageAtTickBytes = usageBytes;
        const { memoryHighBytes: highBytes } = call.lines;
        if (call.limits.highIsGuess && isNearHigh({ usageBytes, highBytes, grownBytes })) {
          pool = undefined;
          this.#lendAhead(call, usageBytes, grownBytes, now);
        }
        // memory.high is overrun by a page or two before it throttles, hence no exact comparison.
        if (usageBytes >= call.lines.memoryHighBytes * 0.99) {
          call.lastPressedMs = now;
          pool ??= this.pool();
          this.#decideThrottled(call, usageBytes, poolFor(call, pool), now);
        } else {
          call.throttledSinceMs = undefined;
          if (call.lines.memoryHighBytes > call.limits.memoryHighBytes && !call.givingBack) {
            pool ??= this.pool();
            this.#giveBack(call, usageBytes, grownBytes, pool, now);
          }
        }
      });
    }
    for (const [call, untilMs] of this.#aftercare) {
      if (call.frozenSinceMs === undefined) {
        this.#guarded(call, () =>
          this.#deps.freezer.continueStopped(call.cgroup, call.procPath, call.stoppedAtNs),
        );
      }
      if (now > untilMs) this.#aftercare.delete(call);
    }
    this.#keeper.look(now);
  }

  /** A call that made room for others goes on. */
  #letGo(call: Call, reason: string): void {
    call.cycle += 1;
    this.#enforce(call);
    this.#thaw(call, reason);
    call.record({ action: 'thaw', reason, usageBytes: this.usageBytes(call) }, nowMs());
    saveCall(call, nowMs());
  }

  #freeze(call: Call, why: 'line' | 'pool', reason: string, usageBytes: number): void {
    this.#deps.freezer.freeze(call.cgroup, call.procPath, call.stoppedAtNs);
    const now = nowMs();
    call.frozenSinceMs = now;
    call.frozenFor = why;
    if (why === 'pool') call.madeRoom = true;
    call.lastPressedMs = now;
    call.record({ action: 'freeze', reason, usageBytes }, now);
    this.#deps.emit('freeze', call, { reason, usageBytes });
  }

  #thaw(call: Call, reason: string): void {
    this.#deps.freezer.thaw(call.cgroup, call.procPath, call.stoppedAtNs);
    const now = nowMs();
    call.countFreeze(now);
    call.throttledSinceMs = undefined;
    this.#aftercare.set(call, now + AFTERCARE_MS);
    this.#deps.emit('thaw', call, { reason });
  }

  #decide(call: Call): void {
    const now = nowMs();
    const decision = decideFrozen(
      {
        ...this.#held(call, this.usageBytes(call)),
        frozenSinceMs: call.frozenSinceMs ?? now,
        killPending: this.#some((other) => other.killCode === 'host-memory'),
      },
      poolFor(call, this.pool()),
      now,
      this.#deps.config(),
    );
    if (decision.action === 'lend') {
      this.#lend(call, decision.lines, decision.reason);
    } else if (decision.action === 'kill') {
      this.kill(call, decision.code, decision.reason);
    } else if (decision.action === 'wait' && call.decisions.at(-1)?.action !== 'wait') {
      call.record({ action: 'wait', reason: decision.reason }, now);
      this.#deps.emit('wait', call, { reason: decision.reason });
      saveCall(call, nowMs());
    }
  }

  /** In this order nothing can run into an old limit: max, freeze line, high, then thaw. */
  #lend(call: Call, lines: Lines, reason: string): void {
    const usageBytes = this.usageBytes(call);
    if (lines.memoryMaxBytes !== call.lines.memoryMaxBytes) {
      call.cgroup.write(files.memoryMax, cgroupNumber(lines.memoryMaxBytes));
    }
    call.lines = lines;
    call.cycle += 1;
    this.#enforce(call);
    call.cgroup.write(files.memoryHigh, cgroupNumber(lines.memoryHighBytes));
    if (call.frozenSinceMs !== undefined) this.#thaw(call, 'lent');
    call.record({ action: 'lend', reason, usageBytes, highBytes: lines.memoryHighBytes }, nowMs());
    this.#deps.emit('lend', call, { reason, usageBytes, highBytes: lines.memoryHighBytes });
    saveCall(call, nowMs());
  }

  #lendAhead(call: Call, usageBytes: number, grownBytes: number, now: number): void {
    const held = { ...this.#held(call, usageBytes), grownBytes };
    const decision = decideAhead(held, poolFor(call, this.pool()), this.#deps.config());
    if (decision.action !== 'lend') return;
    call.lastPressedMs = now;
    this.#lend(call, decision.lines, decision.reason);
  }

  #decideThrottled(call: Call, usageBytes: number, pool: Pool, now: number): void {
    call.throttledSinceMs ??= now;
    const { userMs } = call.cgroup.cpuUsage();
    const before = call.cpuSample ?? { userMs: 0, atMs: call.startedAtMs };
    if (now - before.atMs >= CPU_SAMPLE_MS || call.cpuSample === undefined)
      call.cpuSample = { userMs, atMs: now };
    const decision = decideThrottled(
      {
        ...this.#held(call, usageBytes),
        throttledSinceMs: call.throttledSinceMs,
        pressureFullPercent: call.cgroup.memoryPressure().fullAvg10,
        userCpuPercent: (100 * (userMs - before.userMs)) / Math.max(1, now - before.atMs),
      },
      pool,
      now,
      this.#deps.config(),
    );
    if (decision.action === 'lend') this.#lend(call, decision.lines, decision.reason);
    else if (decision.action === 'kill') this.kill(call, decision.code, decision.reason);
  }

  /** Lowering goes the other way: high first, in the thread pool because the writer reclaims, max last. */
  #giveBack(call: Call, usageBytes: number, grownBytes: number, pool: Pool, now: number): void {
    const lines = decideGiveBack(
      {
        ...this.#held(call, usageBytes),
        grownBytes,
        declaredHighBytes: call.limits.memoryHighBytes,
        lastPressedMs: call.lastPressedMs,
        wanted: this.#some((other) => other.frozenSinceMs !== undefined),
      },
      pool,
      now,
      this.#deps.config(),
    );
    if (lines === null) return;
    call.givingBack = true;
    const before = call.lines;
    call.cgroup
      .writeOffThread(files.memoryHigh, cgroupNumber(lines.memoryHighBytes))
      .then(async () => {
        // Meanwhile the call may have ended, or have been frozen and lent to.
        if (call.lines !== before || call.frozenSinceMs !== undefined || !this.#calls.has(call.cgroup.id))
          return;
        call.lines = { ...before, memoryHighBytes: lines.memoryHighBytes };
        if (this.usageBytes(call) > lines.freezeLineBytes) return;
        call.lines = { ...call.lines, freezeLineBytes: lines.freezeLineBytes };
        this.#enforce(call);
        if (lines.memoryMaxBytes < before.memoryMaxBytes) {
          await call.cgroup.writeOffThread(files.memoryMax, cgroupNumber(lines.memoryMaxBytes));
          call.lines = { ...call.lines, memoryMaxBytes: lines.memoryMaxBytes };
        }
        call.record(
          { action: 'give-back', reason: 'burst over', usageBytes, highBytes: lines.memoryHighBytes },
          now,
        );
        this.#deps.emit('give-back', call, { usageBytes, highBytes: lines.memoryHighBytes });
        saveCall(call, nowMs());
      })
      .catch((error: unknown) => this.#report(call, error))
      .finally(() => {
        call.givingBack = false;
      });
  }

  #timedOut(call: Call, now: number): boolean {
    const { timeoutMs } = call.limits;
    if (timeoutMs === null) return false;
    const { due } = decideTimeout(
      { startedAtMs: call.startedAtMs, timeoutMs, frozenMs: call.frozenMs(now) },
      now,
    );
    if (due) this.kill(call, 'timeout', `ran longer than its timeout of ${timeoutMs} ms`);
    return due;
  }

  #some(test: (call: Call) => boolean): boolean {
    for (const call of this.#calls.values()) if (test(call)) return true;
    return false;
  }

  #held(call: Call, usageBytes: number): HeldCall {
    return {
      usageBytes,
      tasks: call.cgroup.readNumber(files.pidsCurrent),
      highBytes: call.lines.memoryHighBytes,
      declaredMaxBytes: call.limits.memoryMaxBytes,
      blocksOthers: this.#keeper.blocksOthers(call),
    };
  }

  #enforce(call: Call): void {
    const { enforcement } = this.#deps.config();
    this.#deps.enforcer.set(
      call.cgroup,
      {
        freezeLineBytes: call.lines.freezeLineBytes,
        budgetMs: enforcement.throttleBudgetMs,
        budgetEvents: enforcement.throttleBudgetEvents,
        windowMs: enforcement.windowMs,
        poolLineBytes: call.poolLineBytes,
      },
      call.cycle,
    );
  }

  #guarded(call: Call, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#report(call, error);
    }
  }

  /** A kernel file that fails belongs to one call; the others must not suffer for it. */
  #report(call: Call, error: unknown): void {
    // What was under way in the thread pool when the call ended and its cgroup was closed.
    if (errnoOf(error) === 'EBADF' && !this.#calls.has(call.cgroup.id)) return;
    this.#deps.emit('degraded', call, { error: messageOf(error) });
    this.#deps.log.error({ err: error, call: call.id }, 'call not under control');
  }
}

/** What of the pool is there for a call: what those before it may want is not. */
function poolFor(call: Call, pool: Pool): Pool {
  return call.poolLineBytes === 0 ? pool : poolUpTo(pool, call.poolLineBytes);
}

const STOP_REASONS = {
  line: 'over its freeze line',
  'budget-time': 'throttle budget used up (time)',
  'budget-events': 'throttle budget used up (events)',
  pool: 'grew while all calls together had no more',
} as const;
