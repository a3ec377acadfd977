// SPDX-License-Identifier: Apache-2.0
import { DecayedSum } from './decayed.ts';
import type { HungCause } from './reaper.ts';
import type { RetryAdvice } from './retry-after.ts';
import type { RetrySettings } from './settings.ts';
import type { Verdict } from './types.ts';

/** What the decision needs to know of a turn. */
export interface RetryCandidate {
  readonly retryable: boolean;
  /** The client has seen something of the response. */
  readonly committed: boolean;
  /** Retries so far after hangs and failures, and after 429 and 529. */
  readonly retries: number;
  readonly turnedAway: number;
  /** All attempts but the first. */
  readonly attempt: number;
  readonly submittedAtMs: number;
}

/** Of these answers another attempt may be served: the same set as the official SDKs'. */
export function isRetryableStatus(status: number | null): boolean {
  return status === null || status === 408 || status === 409 || status === 429 || status >= 500;
}

export function isTurnedAway(status: number | null): boolean {
  return status === 429 || status === 529;
}

/**
 * What becomes of a turn whose upstream failed.
 * @param random 0 to 1.
 */
export function afterError(
  turn: RetryCandidate,
  error: { readonly status: number | null; readonly advice: RetryAdvice; readonly quotaExhausted: boolean },
  nowMs: number,
  random: number,
  settings: RetrySettings,
): Verdict {
  const { status, advice, quotaExhausted } = error;
  const what = status === null ? 'connection failed' : `status ${status}`;
  const pass = (why: string, shouldRetry: boolean | null): Verdict => ({
    action: 'fail',
    reason: `${what}, ${why}`,
    shouldRetry,
    retryAfterMs: advice.afterMs,
  });
  if (quotaExhausted) return pass('quota used up', false);
  if (advice.shouldRetry === false) return pass('the upstream wants no retry', null);
  if (advice.shouldRetry !== true && !isRetryableStatus(status)) return pass('no use in a retry', null);
  if (turn.committed) return pass('part of the response is with the client', null);
  if (!turn.retryable) return pass('the request must not be sent twice', false);
  const turnedAway = isTurnedAway(status);
  const count = turnedAway ? turn.turnedAway : turn.retries;
  if (count >= (turnedAway ? settings.mostTurnedAway : settings.most)) return pass('retries used up', false);
  const delayMs = retryDelayMs(count, advice.afterMs, random, settings);
  if (nowMs + delayMs > turn.submittedAtMs + settings.patienceMs) {
    return pass('a retry would come after the client has given up', null);
  }
  return { action: 'retry', attempt: turn.attempt + 1, delayMs, reason: what };
}

/** What becomes of a turn that hung. @param affordable whether a second retry is within the budget. */
export function afterHang(
  turn: RetryCandidate,
  cause: HungCause,
  affordable: boolean,
  nowMs: number,
  random: number,
  settings: RetrySettings,
): Verdict {
  const fail = (reason: string): Verdict => ({
    action: 'fail',
    reason,
    shouldRetry: false,
    retryAfterMs: null,
  });
  if (cause === 'lease-expired') return fail('its lease has expired');
  if (cause === 'whole-response') return fail('its client has given up');
  if (turn.committed) return fail('part of the response is with the client');
  if (!turn.retryable) return fail('the request must not be sent twice');
  if (turn.retries >= settings.most) return fail('retries used up');
  if (turn.retries > 0 && !affordable) return fail('too much lane time is lost to retries');
  const delayMs = random * settings.hungDelayMs;
  if (nowMs + delayMs > turn.submittedAtMs + settings.patienceMs) return fail('its client has given up');
  return { action: 'retry', attempt: turn.attempt + 1, delayMs, reason: `hung (${cause})` };
}

/**
 * @param count retries so far.
 * @param afterMs the upstream's own word; what is put on top keeps those apart that were told the same.
 */
export function retryDelayMs(
  count: number,
  afterMs: number | null,
  random: number,
  settings: RetrySettings,
): number {
  const backoffMs = Math.min(settings.backoffMs * 2 ** count, settings.backoffMostMs);
  if (afterMs === null) return backoffMs * (1 - settings.jitter * random);
  return afterMs + settings.jitter * random * Math.min(backoffMs, Math.max(afterMs, settings.backoffMs));
}

/** Bounds the lane time that is lost to retries that hang again. */
export class RetryBudget {
  readonly #share: number;
  readonly #lostMs: DecayedSum;
  readonly #servedMs: DecayedSum;

  constructor(settings: RetrySettings) {
    this.#share = settings.lostShare;
    this.#lostMs = new DecayedSum(settings.lostHalfLifeMs);
    this.#servedMs = new DecayedSum(settings.lostHalfLifeMs);
  }

  served(laneMs: number, nowMs: number): void {
    this.#servedMs.add(laneMs, nowMs);
  }

  lost(laneMs: number, nowMs: number): void {
    this.#lostMs.add(laneMs, nowMs);
  }

  allows(nowMs: number): boolean {
    return this.#lostMs.value(nowMs) <= this.#share * this.#servedMs.value(nowMs);
  }
}
