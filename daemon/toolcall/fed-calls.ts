// SPDX-License-Identifier: Apache-2.0
import type { FedCall } from '../session/calls-feed.ts';
import type { Call } from './call.ts';

/** Calls as the other half needs to know them. */
export function* fedCalls(calls: Iterable<Call>): Generator<FedCall> {
  for (const { session, phase, frozenSinceMs } of calls) {
    yield { session: session.key, live: phase === 'live', frozen: frozenSinceMs !== undefined };
  }
}

/** Frozen calls that wait for memory which the pool does not have. */
export function unservedCalls(calls: Iterable<Call>): number {
  let count = 0;
  for (const { frozenSinceMs, decisions } of calls) {
    if (frozenSinceMs !== undefined && decisions.at(-1)?.action === 'wait') count += 1;
  }
  return count;
}
