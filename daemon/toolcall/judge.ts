// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import { files } from '../kernel/files.ts';
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
import type { Pool } from '../policy/pool.ts';
import type { Call } from './call.ts';
import type { Lending } from './lending.ts';
import { poolFor } from './pool/picture.ts';
import { saveCall } from './saved-state.ts';

/** Over this long the CPU use of a throttled call is averaged; cpu.stat is flushed every 2 s at worst. */
const CPU_SAMPLE_MS = 2000;

export interface JudgeDeps {
  /** Those that are held to their limits. */
  readonly calls: () => Iterable<Call>;
  readonly config: () => Config;
  readonly pool: () => Pool;
  readonly usageBytes: (call: Call) => number;
  /** Whether a task outside waits for a file lock that this frozen call holds. */
  readonly blocksOthers: (call: Call) => boolean;
  readonly lending: Pick<Lending, 'lend' | 'giveBack'>;
  readonly kill: (call: Call, code: KillCode, reason: string) => void;
  readonly guarded: (call: Call, action: () => void) => void;
  readonly emit: (kind: string, call: Call, detail?: object) => void;
}

/** Asks the policy about each call by itself, and has done what it says. The pool's keeper asks about all together. */
export class Judge {
  readonly #deps: JudgeDeps;

  constructor(deps: JudgeDeps) {
    this.#deps = deps;
  }

  /** Looks at each call for what no event tells. */
  look(now: number): void {
    let pool: Pool | undefined;
    for (const call of this.#deps.calls()) {
      if (call.killCode !== undefined) continue;
      this.#deps.guarded(call, () => {
        if (this.#timedOut(call, now)) return;
        if (call.frozenFor === 'pool') return;
        if (call.frozenSinceMs !== undefined) {
          pool = undefined;
          this.frozen(call);
          return;
        }
        const usageBytes = this.#deps.usageBytes(call);
        const grownBytes = usageBytes - call.usageAtTickBytes;
        call.usageAtTickBytes = usageBytes;
        const { memoryHighBytes: highBytes } = call.lines;
        if (call.limits.highIsGuess && isNearHigh({ usageBytes, highBytes, grownBytes })) {
          pool = undefined;
          this.#growing(call, usageBytes, grownBytes, now);
        }
        // memory.high is overrun by a page or two before it throttles, hence no exact comparison.
        if (usageBytes >= call.lines.memoryHighBytes * 0.99) {
          call.lastPressedMs = now;
          pool ??= this.#deps.pool();
          this.#throttled(call, usageBytes, poolFor(call, pool), now);
        } else {
          call.throttledSinceMs = undefined;
          if (call.lines.memoryHighBytes > call.limits.memoryHighBytes && !call.givingBack) {
            pool ??= this.#deps.pool();
            this.#burstOver(call, usageBytes, grownBytes, pool, now);
          }
        }
      });
    }
  }

  /** A call is frozen at a line of its own: it is lent memory, waits, or is killed. */
  frozen(call: Call): void {
    const { pool, config, lending, kill, emit, usageBytes } = this.#deps;
    const now = nowMs();
    const decision = decideFrozen(
      {
        ...this.#held(call, usageBytes(call)),
        frozenSinceMs: call.frozenSinceMs ?? now,
        killPending: this.#some((other) => other.killCode === 'host-memory'),
      },
      poolFor(call, pool()),
      now,
      config(),
    );
    if (decision.action === 'lend') {
      lending.lend(call, decision.lines, decision.reason);
    } else if (decision.action === 'kill') {
      kill(call, decision.code, decision.reason);
    } else if (decision.action === 'wait' && call.decisions.at(-1)?.action !== 'wait') {
      call.record({ action: 'wait', reason: decision.reason }, now);
      emit('wait', call, { reason: decision.reason });
      saveCall(call, nowMs());
    }
  }

  #growing(call: Call, usageBytes: number, grownBytes: number, now: number): void {
    const held = { ...this.#held(call, usageBytes), grownBytes };
    const decision = decideAhead(held, poolFor(call, this.#deps.pool()), this.#deps.config());
    if (decision.action !== 'lend') return;
    call.lastPressedMs = now;
    this.#deps.lending.lend(call, decision.lines, decision.reason);
  }

  #throttled(call: Call, usageBytes: number, pool: Pool, now: number): void {
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
    if (decision.action === 'lend') this.#deps.lending.lend(call, decision.lines, decision.reason);
    else if (decision.action === 'kill') this.#deps.kill(call, decision.code, decision.reason);
  }

  #burstOver(call: Call, usageBytes: number, grownBytes: number, pool: Pool, now: number): void {
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
    if (lines !== null) this.#deps.lending.giveBack(call, lines, usageBytes, now);
  }

  #timedOut(call: Call, now: number): boolean {
    const { timeoutMs } = call.limits;
    if (timeoutMs === null) return false;
    const { due } = decideTimeout(
      { startedAtMs: call.startedAtMs, timeoutMs, frozenMs: call.frozenMs(now) },
      now,
    );
    if (due) this.#deps.kill(call, 'timeout', `ran longer than its timeout of ${timeoutMs} ms`);
    return due;
  }

  #some(test: (call: Call) => boolean): boolean {
    for (const call of this.#deps.calls()) if (test(call)) return true;
    return false;
  }

  #held(call: Call, usageBytes: number): HeldCall {
    return {
      usageBytes,
      tasks: call.cgroup.readNumber(files.pidsCurrent),
      highBytes: call.lines.memoryHighBytes,
      declaredMaxBytes: call.limits.memoryMaxBytes,
      blocksOthers: this.#deps.blocksOthers(call),
    };
  }
}
