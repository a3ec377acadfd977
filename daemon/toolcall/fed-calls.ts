// SPDX-License-Identifier: Apache-2.0
import type { FedCall } from '../session/calls-feed.ts';
import type { Call } from './call.ts';

/** Calls as the other half needs to know them. */
export function* fedCalls(calls: Iterable<Call>): Generator<FedCall & { readonly place: number }> {
  for (const { session, cgroup, phase, frozenSinceMs } of calls) {
    const frozen = frozenSinceMs !== undefined;
    yield { session: session.key, place: cgroup.id, live: phase === 'live', frozen };
  }
}

/** Calls that are frozen for memory which the pool does not have: they wait for a loan, or make room for others. */
export function unservedCalls(calls: Iterable<Pick<Call, 'frozenFor' | 'decisions'>>): number {
  let count = 0;
  for (const { frozenFor, decisions } of calls) {
    if (frozenFor === 'pool' || (frozenFor === 'line' && decisions.at(-1)?.action === 'wait')) count += 1;
  }
  return count;
}
