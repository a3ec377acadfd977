// SPDX-License-Identifier: Apache-2.0
import type { ReplayProcess } from './process.ts';

/** How long a session was held back. */
export interface Held {
  readonly frozenMs: number;
  /** That its tasks waited for memory: in the throttle, for reclaim, for the OOM killer. */
  readonly throttledMs: number;
}

/** Where the sessions of one run live, and who keeps them within their limits. */
export interface Stage {
  /** Starts a session's process in its place; it is ready when it waits for its orders there. */
  open(index: number): ReplayProcess;
  /** All are ready, and are told after this when to start. */
  begin(): Promise<void>;
  /** A session has ended. */
  ended(index: number): void;
  /**
   * Asked for when all have ended.
   * @param startNs of this session, in CLOCK_MONOTONIC.
   */
  held(index: number, startNs: bigint): Promise<Held>;
  /** Rejects if the run cannot go on. */
  readonly failed: Promise<never>;
  /** Ends whatever still runs and removes all that was made. */
  close(): Promise<void>;
}
