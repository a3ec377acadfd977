// SPDX-License-Identifier: Apache-2.0
import { RESOURCES, type Resource } from './resources.ts';
import type { HeaderReader } from './types.ts';

/** What an upstream says of one of its limits. */
export interface RateReading {
  readonly resource: Resource;
  readonly limitPerMin: number;
  /** Null: it does not say, or cannot be. */
  readonly remaining: number | null;
  /** Input and output tokens count towards this one limit. */
  readonly bothTokens: boolean;
}

export interface RateReadings {
  readonly readings: readonly RateReading[];
  /** How many values were there and could not be: negative, no number, a limit of 0, more left than there is. */
  readonly bad: number;
}

/** More than any account has a minute; beyond it is a slip, and would lose precision. */
const MOST = 1e12;

interface Names {
  readonly limit: string;
  readonly remaining: string;
  readonly bothTokens?: true;
}

const names: Readonly<Record<Resource, readonly Names[]>> = {
  requests: [
    { limit: 'anthropic-ratelimit-requests-limit', remaining: 'anthropic-ratelimit-requests-remaining' },
    { limit: 'x-ratelimit-limit-requests', remaining: 'x-ratelimit-remaining-requests' },
  ],
  inputTokens: [
    {
      limit: 'anthropic-ratelimit-input-tokens-limit',
      remaining: 'anthropic-ratelimit-input-tokens-remaining',
    },
    // OpenAI's `tokens` are input and output together.
    { limit: 'x-ratelimit-limit-tokens', remaining: 'x-ratelimit-remaining-tokens', bothTokens: true },
  ],
  outputTokens: [
    {
      limit: 'anthropic-ratelimit-output-tokens-limit',
      remaining: 'anthropic-ratelimit-output-tokens-remaining',
    },
  ],
};

/**
 * Reads `anthropic-ratelimit-*` and `x-ratelimit-*`. Upstreams lie in them (-1, 0, text): such values count for
 * nothing, and "0 left" is believed only beside a limit, because it would stop all turns.
 */
export function rateReadings(headers: HeaderReader): RateReadings {
  const readings: RateReading[] = [];
  let bad = 0;
  const read = (name: string, least: number): number | null => {
    const text = headers(name);
    if (text === null || text === undefined) return null;
    const value = /^\s*\d+\s*$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= MOST) return value;
    bad += 1;
    return null;
  };
  for (const resource of RESOURCES) {
    for (const { limit, remaining, bothTokens = false } of names[resource]) {
      const limitPerMin = read(limit, 1);
      let left = read(remaining, 0);
      if (limitPerMin === null) continue;
      if (left !== null && left > limitPerMin) {
        bad += 1;
        left = null;
      }
      readings.push({ resource, limitPerMin, remaining: left, bothTokens });
      break;
    }
  }
  return { readings, bad };
}
