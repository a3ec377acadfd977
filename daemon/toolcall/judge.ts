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
import type { Lines } from '../policy/lines.ts';
import type { Pool } from '../policy/pool.ts';
import { type Call, isDying } from './call.ts';
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
  /** As it was at this look; what is lent changes it. */
  #pool: Pool | undefined;

  constructor(deps: JudgeDeps) {
    this.#deps = deps;
  }

  /** Looks at each call for what no event tells. */
  look(now: number): void {
    this.#pool = undefined;
    for (const call of this.#deps.calls()) {
      if (call.killCode !== undefined) continue;
      this.#deps.guarded(call, () => {
        if (this.#timedOut(call, now)) return;
        if (call.frozenFor === 'pool') return;
        if (call.frozenSinceMs !== undefined) {
          this.frozen(call);
          return;
        }
        const usageBytes = this.#deps.usageBytes(call);
        const grownBytes = usageBytes - call.usageAtTickBytes;
        call.usageAtTickBytes = usageBytes;
        const { memoryHighBytes: highBytes } = call.lines;
        if (call.limits.highIsGuess && isNearHigh({ usageBytes, highBytes, grownBytes })) {
          this.#growing(call, usageBytes, grownBytes, now);
        }
        // memory.high is overrun by a page or two before it throttles, hence no exact comparison.
        if (usageBytes >= call.lines.memoryHighBytes * 0.99) {
          call.lastPressedMs = now;
          this.#throttled(call, usageBytes, now);
        } else {
          call.throttledSinceMs = undefined;
          if (call.lines.memoryHighBytes > call.limits.memoryHighBytes && !call.givingBack) {
            this.#burstOver(call, usageBytes, grownBytes, now);
          }
        }
      });
    }
  }

  /** A call is frozen at a line of its own: it is lent memory, waits, or is killed. */
  frozen(call: Call): void {
    const { config, kill, emit, usageBytes } = this.#deps;
    // Also told of between two looks: what the last one saw may be long ago.
    this.#pool = undefined;
    const now = nowMs();
    const decision = decideFrozen(
      {
        ...this.#held(call, usageBytes(call)),
        frozenSinceMs: call.frozenSinceMs ?? now,
        killPending: this.#some((other) => other.killCode === 'host-memory' && isDying(other, now)),
      },
      poolFor(call, this.#picture()),
      now,
      config(),
    );
    if (decision.action === 'lend') {
      this.#lend(call, decision);
    } else if (decision.action === 'kill') {
      kill(call, decision.code, decision.reason);
    } else if (decision.action === 'wait' && call.decisions.at(-1)?.action !== 'wait') {
      call.record({ action: 'wait', reason: decision.reason }, now);
      emit('wait', call, { reason: decision.reason });
      saveCall(call);
    }
  }

  #growing(call: Call, usageBytes: number, grownBytes: number, now: number): void {
    const held = { ...this.#held(call, usageBytes), grownBytes };
    const decision = decideAhead(held, poolFor(call, this.#picture()), this.#deps.config());
    if (decision.action !== 'lend') return;
    call.lastPressedMs = now;
    this.#lend(call, decision);
  }

  #throttled(call: Call, usageBytes: number, now: number): void {
    call.throttledSinceMs ??= now;
    const { userMs } = call.cgroup.cpuUsage();
    const before = call.cpuSample ?? { userMs: 0, atMs: call.startedAtMs };
    // Over less it says nothing: right after a sample that would be since the last look.
    if (call.cpuSample === undefined || now - before.atMs >= CPU_SAMPLE_MS) {
      const userPercent = (100 * (userMs - before.userMs)) / Math.max(1, now - before.atMs);
      call.cpuSample = { userMs, atMs: now, userPercent };
    }
    const decision = decideThrottled(
      {
        ...this.#held(call, usageBytes),
        throttledSinceMs: call.throttledSinceMs,
        pressureFullPercent: call.cgroup.memoryPressure().fullAvg10,
        userCpuPercent: call.cpuSample.userPercent,
      },
      poolFor(call, this.#picture()),
      now,
      this.#deps.config(),
    );
    if (decision.action === 'lend') this.#lend(call, decision);
    else if (decision.action === 'kill') this.#deps.kill(call, decision.code, decision.reason);
  }

  #burstOver(call: Call, usageBytes: number, grownBytes: number, now: number): void {
    const lines = decideGiveBack(
      {
        ...this.#held(call, usageBytes),
        grownBytes,
        declaredHighBytes: call.limits.memoryHighBytes,
        lastPressedMs: call.lastPressedMs,
        wanted: this.#some((other) => other.frozenSinceMs !== undefined),
      },
      this.#picture(),
      now,
      this.#deps.config(),
    );
    if (lines !== null) this.#deps.lending.giveBack(call, lines, usageBytes, now);
  }

  #lend(call: Call, { lines, reason }: { readonly lines: Lines; readonly reason: string }): void {
    this.#pool = undefined;
    this.#deps.lending.lend(call, lines, reason);
  }

  #picture(): Pool {
    this.#pool ??= this.#deps.pool();
    return this.#pool;
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
