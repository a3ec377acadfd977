// SPDX-License-Identifier: Apache-2.0

import { hostMemory } from '../kernel/host.ts';
import type { Native } from '../kernel/native.ts';
import { formatBytes } from '../units.ts';
import type { Arm } from './arms.ts';
import { type RunOptions, replay, type SessionResult } from './run.ts';
import { peakBytes, type Trace } from './trace.ts';

/** One run, as `agentrm replay --json` prints it. */
export interface RunRecord {
  readonly arm: Arm;
  readonly limitBytes: number;
  /** From 1. */
  readonly run: number;
  readonly speed: number;
  readonly baseBytes: number;
  readonly sessions: readonly SessionRecord[];
}

export interface SessionRecord extends SessionResult {
  /** totalMs of the same trace alone and without a limit, at the same speed; null if that was not measured. */
  readonly aloneMs: number | null;
}

/**
 * How long each trace takes alone and without a limit, one after the other.
 * @throws Error if this host has not the memory for one of them.
 */
export async function measureAlone(
  native: Native,
  options: Omit<RunOptions, 'arm' | 'limitBytes'>,
): Promise<ReadonlyMap<Trace, number>> {
  const alone = new Map<Trace, number>();
  for (const session of options.sessions) {
    if (alone.has(session.trace)) continue;
    const needsBytes = peakBytes(session.trace) + options.baseBytes;
    const { availableBytes } = hostMemory();
    if (needsBytes > availableBytes) {
      const has = `${formatBytes(availableBytes)} available`;
      throw new Error(`${session.name}: needs ${formatBytes(needsBytes)} alone, and this host has ${has}`);
    }
    const [result] = await replay(native, {
      ...options,
      arm: 'none',
      limitBytes: Number.POSITIVE_INFINITY,
      sessions: [{ ...session, delayMs: 0 }],
    });
    if (result?.totalMs == null) {
      throw new Error(
        `${session.name}: ended with ${result?.ended} alone and without a limit: ${result?.said}`,
      );
    }
    alone.set(session.trace, result.totalMs);
  }
  return alone;
}

/** One run of an arm. @param alone of every trace, from {@link measureAlone}. */
export async function runOnce(
  native: Native,
  options: RunOptions,
  run: number,
  alone: ReadonlyMap<Trace, number>,
): Promise<RunRecord> {
  const { arm, limitBytes, speed, baseBytes, sessions } = options;
  const results = await replay(native, options);
  return {
    arm,
    limitBytes,
    run,
    speed,
    baseBytes,
    sessions: results.map((result, index) => {
      const trace = sessions[index]?.trace ?? [];
      return { ...result, aloneMs: alone.get(trace) ?? null };
    }),
  };
}
