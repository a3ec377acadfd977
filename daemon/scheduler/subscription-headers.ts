// SPDX-License-Identifier: Apache-2.0
import type { HeaderReader } from './types.ts';

/** What an account with a subscription is told of its limits: over hours and days, in place of limits by the minute. */
export const SUBSCRIPTION_STATUSES = ['allowed', 'allowed_warning', 'rejected'] as const;
export type SubscriptionStatus = (typeof SUBSCRIPTION_STATUSES)[number];

/** The windows that every subscription has; of others, such as those of one model, only the claim tells. */
export const SUBSCRIPTION_WINDOWS = ['5h', '7d'] as const;
export type SubscriptionWindowName = (typeof SUBSCRIPTION_WINDOWS)[number];

export interface SubscriptionWindow {
  readonly window: SubscriptionWindowName;
  /** Null: it does not say, or cannot be. */
  readonly status: SubscriptionStatus | null;
  /** Of what the window holds, 0 to 1, over 1 with what was used beyond it; null as above. */
  readonly used: number | null;
  readonly resetWallMs: number | null;
}

export interface SubscriptionReading {
  readonly status: SubscriptionStatus;
  /** The limit that decided, in the API's own word, such as `five_hour`; null: it does not say. */
  readonly claim: string | null;
  /** Another model would be served although this one is not. */
  readonly fallback: boolean;
  /** When what decided begins anew. */
  readonly resetWallMs: number | null;
  readonly windows: readonly SubscriptionWindow[];
  /** The headers themselves, names and values in turn, for clients that are told by us. */
  readonly headers: readonly string[];
}

const PREFIX = 'anthropic-ratelimit-unified-';
/** What clients read to tell their user which limit it is, when it ends, and what can be done. */
const SHOWN = [
  'status',
  'reset',
  'representative-claim',
  'fallback',
  'fallback-percentage',
  'overage-status',
  'overage-reset',
  'overage-disabled-reason',
  'upgrade-paths',
  ...SUBSCRIPTION_WINDOWS.flatMap((window) => [
    `${window}-status`,
    `${window}-reset`,
    `${window}-utilization`,
  ]),
];
/** Of clocks that differ, and of the longest window that there is: a month. */
const MOST_PAST_MS = 86_400_000;
const MOST_AHEAD_MS = 32 * 86_400_000;
/** Ten times what a window holds was never used of it. */
const MOST_USED = 10;
/** Longer values are none of these headers'. */
const MAX_VALUE_CHARS = 256;
/** Limits of the account; every other one is that of a model or of what is paid beyond the subscription. */
const ACCOUNT_CLAIMS: ReadonlySet<string> = new Set(['five_hour', 'seven_day']);

/**
 * Reads `anthropic-ratelimit-unified-*`. What cannot be counts for nothing: an unknown status, a use that is no
 * fraction, a reset that is no time near now.
 * @returns a null reading if the answer is not of a subscription, or does not say how it stands; and how many values
 *   were there and could not be.
 */
export function subscriptionReading(
  headers: HeaderReader,
  wallNowMs: number,
): { readonly reading: SubscriptionReading | null; readonly bad: number } {
  // Most answers have none of them: one look for those.
  if (headers(`${PREFIX}status`) == null) return { reading: null, bad: 0 };
  let bad = 0;
  const read = <T>(name: string, parse: (text: string) => T | null): T | null => {
    const text = headers(PREFIX + name)?.trim();
    if (text === undefined) return null;
    const value = text.length <= MAX_VALUE_CHARS ? parse(text) : null;
    if (value === null) bad += 1;
    return value;
  };
  const reset = (text: string): number | null => {
    const atMs = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Number.NaN;
    return atMs > wallNowMs - MOST_PAST_MS && atMs < wallNowMs + MOST_AHEAD_MS ? atMs : null;
  };
  const status = read('status', statusOf);
  if (status === null) return { reading: null, bad };
  const claim = read('representative-claim', (text) => (/^[a-z0-9_]+$/.test(text) ? text : null));
  const windows = SUBSCRIPTION_WINDOWS.map((window) => ({
    window,
    status: read(`${window}-status`, statusOf),
    used: read(`${window}-utilization`, usedOf),
    resetWallMs: read(`${window}-reset`, reset),
  }));
  const fallback = headers(`${PREFIX}fallback`)?.trim() === 'available';
  const resetWallMs = read('reset', reset);
  return { reading: { status, claim, fallback, resetWallMs, windows, headers: shown(headers) }, bad };
}

/**
 * What an answer of 429 with such a reading keeps from being served.
 * @returns null if it is not the subscription that turned it away, or nobody knows for how long; `account`: every
 *   model of the account, not only the one that was asked for.
 */
export function rejectionIn(
  reading: SubscriptionReading | null,
  wallNowMs: number,
): { readonly forMs: number; readonly account: boolean } | null {
  if (reading?.status !== 'rejected') return null;
  const { claim, fallback, windows } = reading;
  const rejected = windows.filter(({ status }) => status === 'rejected');
  // All of them must have begun anew before anything is served.
  const resets = [reading.resetWallMs, ...rejected.map(({ resetWallMs }) => resetWallMs)];
  const forMs = Math.max(...resets.map((atMs) => (atMs ?? 0) - wallNowMs));
  if (forMs <= 0) return null;
  return { forMs, account: claim !== null && ACCOUNT_CLAIMS.has(claim) && !fallback };
}

function statusOf(text: string): SubscriptionStatus | null {
  return SUBSCRIPTION_STATUSES.find((status) => status === text) ?? null;
}

function usedOf(text: string): number | null {
  const used = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN;
  return used <= MOST_USED ? used : null;
}

function shown(headers: HeaderReader): string[] {
  return SHOWN.flatMap((name) => {
    const value = headers(PREFIX + name);
    // What Node would refuse to send is not passed on.
    return value != null && value.length <= MAX_VALUE_CHARS && /^[\x20-\x7e]*$/.test(value)
      ? [PREFIX + name, value]
      : [];
  });
}
