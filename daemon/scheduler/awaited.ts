// SPDX-License-Identifier: Apache-2.0
import type { HungEvidence, Lease, Refusal, Ticket, Turn, TurnScheduler, Verdict } from './types.ts';

/** The turn got no lane, or lost its place. */
export class TurnRefused extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.message);
    this.name = 'TurnRefused';
    this.refusal = refusal;
  }
}

export interface AwaitedTurn {
  readonly ticket: Ticket;
  /**
   * The first lease, and after each verdict `retry` the next one. To be called once for each.
   * @throws TurnRefused
   */
  readonly lease: () => Promise<Lease>;
}

export interface AwaitedOptions {
  /** The client has gone: leaves the queue or ends the lease. A signal of this turn's own. */
  readonly signal?: AbortSignal;
  /** See {@link TurnListener.onHung}: may be called any time while the turn has a lease. */
  readonly onHung: (evidence: HungEvidence, verdict: Verdict) => void;
}

/** {@link TurnScheduler.submit} for those who would rather await a lease than be called with it. */
export function submitAwaited(
  scheduler: TurnScheduler,
  turn: Turn,
  { signal, onHung }: AwaitedOptions,
): AwaitedTurn {
  let next = pending();
  let settled = false;
  const fresh = () => {
    if (settled) next = pending();
    settled = false;
    return next;
  };
  const ticket = scheduler.submit(turn, {
    onLease: (lease) => {
      // A lease that nobody took before it hung is of no use any more: the newest one counts.
      fresh().resolve(lease);
      settled = true;
    },
    onRefused: (refusal) => {
      fresh().reject(new TurnRefused(refusal));
      settled = true;
    },
    onHung,
  });
  if (signal?.aborted) ticket.cancel();
  else signal?.addEventListener('abort', ticket.cancel, { once: true });
  return {
    ticket,
    lease: async () => {
      const { promise } = next;
      const lease = await promise;
      if (promise === next.promise) fresh();
      return lease;
    },
  };
}

function pending(): PromiseWithResolvers<Lease> {
  const resolvers = Promise.withResolvers<Lease>();
  // A refusal that nobody awaits, because the client went first, is no unhandled rejection.
  resolvers.promise.catch(() => {});
  return resolvers;
}
