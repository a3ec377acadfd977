// SPDX-License-Identifier: Apache-2.0

export const REFUSAL_CODES = [
  'queue-full', // as many turns wait as may
  'wait-expired', // it waited as long as a client does; its place is kept for the same request
  'session-budget', // the session has used up its tokens
  'quota', // the account's quota is used up, as the upstream said a moment ago
  'subscription', // a limit of the account's subscription is reached, likewise
  'owner-ended', // who submitted it has gone
  'cancelled', // the client has gone
  'closed', // the scheduler is being shut down
] as const;
export type RefusalCode = (typeof REFUSAL_CODES)[number];

export interface Refusal {
  readonly code: RefusalCode;
  /** The status for the client, in the API's own error form: 429, 503 or 529. */
  readonly status: number;
  readonly retryAfterMs: number | null;
  /** For `x-should-retry`. */
  readonly shouldRetry: boolean;
  /** One plain sentence for the client. */
  readonly message: string;
  /** Further headers for the client, names and values in turn: what the upstream itself said of the reason. */
  readonly headers?: readonly string[];
}

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
