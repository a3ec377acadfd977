// SPDX-License-Identifier: Apache-2.0
import type { Refusal, RefusalCode } from './types.ts';

/** What a client is told that gets no lane, by its reason; the argument is when it may come back. */
export const refusals = {
  'queue-full': (afterMs: number) =>
    refusal('queue-full', 529, afterMs, true, 'Too many requests wait for this model.'),
  'wait-expired': (afterMs: number) =>
    refusal(
      'wait-expired',
      529,
      afterMs,
      true,
      'The request waited too long; sent again it keeps its place.',
    ),
  'session-budget': () =>
    refusal('session-budget', 429, null, false, 'This session has used up its budget of tokens.'),
  quota: (afterMs: number) =>
    refusal('quota', 429, afterMs, false, "The account's quota is used up, as the model API said."),
  subscription: (afterMs: number, headers: readonly string[] = []): Refusal => ({
    ...refusal('subscription', 429, afterMs, false, "A limit of the account's subscription is reached."),
    headers,
  }),
  'owner-ended': () =>
    refusal('owner-ended', 503, null, false, 'The process that sent the request has gone.'),
  cancelled: () => refusal('cancelled', 499, null, false, 'The client has gone.'),
  closed: () => refusal('closed', 503, 1_000, true, 'The proxy is being shut down.'),
} satisfies Record<RefusalCode, (afterMs: number) => Refusal>;

function refusal(
  code: RefusalCode,
  status: number,
  retryAfterMs: number | null,
  shouldRetry: boolean,
  message: string,
): Refusal {
  return { code, status, retryAfterMs, shouldRetry, message };
}
