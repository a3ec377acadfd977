// SPDX-License-Identifier: Apache-2.0
import { files } from '../../kernel/files.ts';
import { type Guarantee, guaranteeLeftBytes } from '../../policy/guaranteed.ts';
import type { SessionCgroup } from '../session-cgroup.ts';

/**
 * What sessions hold of what they are guaranteed, read once a look: a file of some 2 us for each session that is guaranteed
 * something, and memory.stat for those that may be beyond it.
 */
export class SessionHoldings {
  #found = new WeakMap<SessionCgroup, Guarantee>();
  readonly #within = new WeakSet<SessionCgroup>();

  /** There is a new look: what they hold may be another. */
  forget(): void {
    this.#found = new WeakMap();
  }

  /** Undefined of a session that is guaranteed nothing. */
  of(session: SessionCgroup): Guarantee | undefined {
    const bytes = session.guaranteedBytes;
    if (bytes === 0) return undefined;
    const found = this.#found.get(session);
    if (found?.bytes === bytes) return found;
    const within = this.#within.has(session);
    const leftBytes = leftOf(session, within);
    if (leftBytes > 0) this.#within.add(session);
    else this.#within.delete(session);
    const guarantee = { bytes, leftBytes };
    this.#found.set(session, guarantee);
    return guarantee;
  }
}

/** By the session's own cgroup: what ended calls have left on tmpfs counts too. Without page cache only where that matters. */
function leftOf({ cgroup, guaranteedBytes }: SessionCgroup, within: boolean): number {
  try {
    const usageBytes = cgroup.readNumber(files.memoryCurrent);
    return (
      guaranteeLeftBytes(guaranteedBytes, usageBytes, within) ||
      guaranteeLeftBytes(guaranteedBytes, usageBytes - cgroup.reclaimableBytes(), within)
    );
  } catch {
    // Removed under us: nobody knows what its calls hold.
    return 0;
  }
}
