// SPDX-License-Identifier: Apache-2.0
import { type Pool, type PoolCall, poolUpTo } from '../../policy/pool.ts';
import type { Call } from '../call.ts';

/**
 * From here on it matters how much of a call's usage is page cache. Below, reading memory.stat, the
 * dearest of the cgroup files at some 7 us, would tell of too little.
 */
const LARGE_BYTES = 32 * 1024 * 1024;

/** A call as the policy for lending sees it. */
export function poolCallOf(call: Call, usageBytes: number): PoolCall {
  return {
    usageBytes,
    reclaimableBytes: usageBytes < LARGE_BYTES ? 0 : call.cgroup.reclaimableBytes(),
    highBytes: call.lines.memoryHighBytes,
    freezeLineBytes: call.lines.freezeLineBytes,
    declaredHighBytes: call.limits.memoryHighBytes,
  };
}

/** What of the pool is there for a call: what those before it may want is not. */
export function poolFor(call: Call, pool: Pool): Pool {
  return call.poolLineBytes === 0 ? pool : poolUpTo(pool, call.poolLineBytes);
}
