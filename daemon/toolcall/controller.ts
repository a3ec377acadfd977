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
import type { KillCode } from '../policy/decide.ts';
import { type Pool, type PoolSettings, poolState } from '../policy/pool.ts';
import type { Call } from './call.ts';
import { CallEnforcer } from './call-enforcer.ts';
import { Freezing } from './freezing.ts';
import { Judge } from './judge.ts';
import { Lending } from './lending.ts';
import { cgroupNumber } from './limit-files.ts';
import { PoolKeeper } from './pool/keeper.ts';
import { poolCallOf } from './pool/picture.ts';
import { saveCall } from './saved-state.ts';

/**
 * How often calls are looked at for what no event tells: pool room for a frozen call, a call that is
 * throttled without reaching its line, lent memory that is no longer used, timeouts. Bursts last 1 to
 * 3 s, and a look costs no system call for a call below memory.high.
 */
const TICK_MS = 100;

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
  readonly #enforcer: CallEnforcer;
  readonly #freezing: Freezing;
  readonly #keeper: PoolKeeper;
  readonly #judge: Judge;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: ControllerDeps) {
    this.#deps = deps;
    this.#enforcer = new CallEnforcer(deps.enforcer, deps.config);
    this.#freezing = new Freezing(deps);
    const lending = new Lending({
      enforcer: this.#enforcer,
      thaw: (call, reason) => this.#freezing.thaw(call, reason),
      has: (call) => this.#calls.has(call.cgroup.id),
      emit: deps.emit,
      onError: (call, error) => this.#report(call, error),
    });
    this.#keeper = new PoolKeeper({
      ...deps,
      // A container's calls share out what the container has.
      calls: () =>
        [...this.#calls.values()].filter(({ sessionCgroup }) => sessionCgroup.root.cgroup === deps.root),
      usageBytes: (call) => this.usageBytes(call),
      freeze: (call, reason) =>
        this.#guarded(call, () => this.#freezing.freeze(call, 'pool', reason, this.usageBytes(call))),
      thaw: (call, reason) => this.#guarded(call, () => this.#letGo(call, reason)),
      kill: (call, reason) => this.kill(call, 'host-memory', reason),
      enforce: (call) => this.#guarded(call, () => this.#enforcer.enforce(call)),
      onError: (error) => deps.log.error({ err: error }, 'pool not under control'),
    });
    this.#judge = new Judge({
      calls: () => this.#calls.values(),
      config: deps.config,
      pool: () => this.pool(),
      usageBytes: (call) => this.usageBytes(call),
      blocksOthers: (call) => this.#keeper.blocksOthers(call),
      lending,
      kill: (call, code, reason) => this.kill(call, code, reason),
      guarded: (call, action) => this.#guarded(call, action),
      emit: deps.emit,
    });
  }

  /** Begins to enforce a call's lines. */
  add(call: Call): void {
    // Before the kernel knows of a new cycle: a stop is news of that one, or an earlier daemon's.
    call.heldSinceNs = this.#deps.native.monotonicNs();
    this.#calls.set(call.cgroup.id, call);
    this.#enforcer.enforce(call);
    this.#keeper.changed();
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS).unref();
  }

  /** Stops looking after a call; its cgroup may be removed afterwards. */
  remove(call: Call): void {
    this.#calls.delete(call.cgroup.id);
    this.#freezing.forget(call);
    this.#enforcer.forget(call);
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
    const calls = [...this.#calls.values()].map((call) => poolCallOf(call, this.usageBytes(call)));
    return poolState({ memAvailableBytes: this.#deps.hostMemory().availableBytes }, calls, {
      ...this.#deps.poolSettings(),
      budgetBytes: this.#keeper.budgetBytes(),
    });
  }

  usageBytes(call: Call): number {
    return this.#enforcer.usageBytes(call);
  }

  /** The kernel says that a call is over its line, has used up its throttle budget, or must make room. */
  onStop(event: StopEvent): void {
    const call = this.#calls.get(event.cgroupId);
    if (call === undefined || call.killCode !== undefined || event.timeNs < call.heldSinceNs) return;
    if (call.frozenSinceMs !== undefined) {
      this.#freezing.stoppedBefore(call, event.timeNs);
      return;
    }
    this.#guarded(call, () => {
      const reason = STOP_REASONS[event.reason];
      const why = event.reason === 'pool' ? 'pool' : 'line';
      this.#freezing.freeze(call, why, reason, event.usageBytes, event.timeNs);
      this.#deps.emit('stop', call, {
        reason: event.reason,
        pid: event.pid,
        comm: event.comm,
        usageBytes: event.usageBytes,
        signalled: event.signalled,
      });
      if (event.reason === 'pool') this.#keeper.changed();
      else this.#judge.frozen(call);
    });
  }

  /**
   * A call that an earlier daemon left: relaxed if that stopped. If it died the call is frozen perhaps, or has tasks that the
   * kernel stopped before it missed the beat: nobody else would ever continue those.
   */
  onFound(call: Call, frozen: boolean): void {
    // What it holds already is no growth of the first look.
    this.#guarded(call, () => {
      call.usageAtTickBytes = this.usageBytes(call);
    });
    call.cgroup
      .writeOffThread(files.memoryHigh, cgroupNumber(call.lines.memoryHighBytes))
      .catch((error: unknown) => this.#report(call, error));
    this.#guarded(call, () => {
      const stoppedAtNs = this.#firstStopNs(call.cgroup);
      if (frozen) {
        this.#freezing.freeze(call, 'line', 'found frozen', this.usageBytes(call), stoppedAtNs);
        this.#judge.frozen(call);
      } else if (stoppedAtNs < call.heldSinceNs) {
        this.#freezing.letGoOn(call, stoppedAtNs);
      }
    });
  }

  /** Ends all of a call's processes, frozen or not. */
  kill(call: Call, code: KillCode, reason: string): void {
    if (call.killCode !== undefined) return;
    call.killCode = code;
    call.killedAtMs = nowMs();
    this.#guarded(call, () => {
      const usageBytes = this.usageBytes(call);
      call.cgroup.write(files.kill, '1');
      call.record({ action: 'kill', reason, usageBytes }, nowMs());
      this.#deps.emit('kill', call, { code, reason, usageBytes });
      this.#deps.log.warn({ call: call.id, code, reason, usageBytes }, 'call killed');
      saveCall(call);
    });
  }

  /** Lets a call go on without the throttle: a daemon that is gone could not decide about it. */
  release(call: Call): void {
    this.#guarded(call, () => {
      call.cgroup.write(files.memoryHigh, 'max');
      if (call.frozenSinceMs !== undefined) this.#freezing.thaw(call, 'daemon stops');
    });
  }

  /** The same for one that no daemon decides about any more: its lines are gone, its maximum stays. */
  disown(cgroup: Cgroup, procPath: string): void {
    const { enforcer, freezer } = this.#deps;
    cgroup.write(files.memoryHigh, 'max');
    freezer.thaw(cgroup, procPath, this.#firstStopNs(cgroup));
    enforcer.forget(cgroup);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#keeper.close();
  }

  /** When BPF began to stop tasks for an earlier daemon, whose cycles nobody knows any more; now if it never has. */
  #firstStopNs(cgroup: Cgroup): bigint {
    const { firstStopNs } = this.#deps.enforcer.stats(cgroup);
    return firstStopNs > 0n ? firstStopNs : this.#deps.native.monotonicNs();
  }

  #tick(): void {
    const now = nowMs();
    // First: the deadline of a freeze that is none any more must not kill.
    for (const call of this.#calls.values()) this.#guarded(call, () => this.#seeThawed(call));
    this.#judge.look(now);
    this.#freezing.lookAfter(now, (call, action) => this.#guarded(call, action));
    this.#keeper.look(now);
  }

  /** What others have thawed is not frozen any more. */
  #seeThawed(call: Call): void {
    if (call.killCode === undefined && this.#freezing.isUndone(call))
      this.#letGo(call, 'thawed from outside');
  }

  /** A frozen call goes on, and may be stopped again. */
  #letGo(call: Call, reason: string): void {
    call.cycle += 1;
    this.#enforcer.enforce(call);
    this.#freezing.thaw(call, reason);
    call.record({ action: 'thaw', reason, usageBytes: this.usageBytes(call) }, nowMs());
    saveCall(call);
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

const STOP_REASONS = {
  line: 'over its freeze line',
  'budget-time': 'throttle budget used up (time)',
  'budget-events': 'throttle budget used up (events)',
  pool: 'grew while all calls together had no more',
} as const;
