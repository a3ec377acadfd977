// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import type { Cgroup } from '../../kernel/cgroup.ts';
import { files } from '../../kernel/files.ts';
import type { Native, Watch } from '../../kernel/native.ts';
import { standsAt, type TripwireUse, tripwireBytes } from '../../policy/tripwire.ts';
import { cgroupNumber } from '../limit-files.ts';

export interface PoolTripwireDeps {
  readonly native: Native;
  /** Of all calls. */
  readonly root: Cgroup;
  readonly onError: (error: unknown) => void;
}

/** The root's memory.high: there the kernel looks who charges, and says that it did. */
export class PoolTripwire {
  readonly #deps: PoolTripwireDeps;
  #bytes: number | undefined;
  #writing = false;
  #events: { readonly fd: number; readonly watch: Watch } | undefined;

  constructor(deps: PoolTripwireDeps) {
    this.#deps = deps;
  }

  /** The kernel says when it is reached, every 10 ms at most (CGROUP_FILE_NOTIFY_MIN_INTV). */
  watch(onReached: () => void): void {
    const { native, root } = this.#deps;
    try {
      const fd = native.openAt(root.fd, files.memoryEventsLocal, false);
      this.#events = { fd, watch: native.watch(fd, 'priority', onReached) };
    } catch (error) {
      // Looks come without it too, only later.
      this.#deps.onError(error);
    }
  }

  /** Puts it where it belongs (daemon/policy/tripwire.ts). */
  set(use: TripwireUse): void {
    const bytes = tripwireBytes(use);
    const stands = this.#bytes !== undefined && standsAt(bytes, use, this.#bytes);
    if (!stands || this.#isGone()) this.#write(bytes);
  }

  /** Takes it away: a daemon that is gone could not let anybody go on. */
  close(): void {
    this.#events?.watch.close();
    if (this.#events !== undefined) closeSync(this.#events.fd);
    // At once: its directory is closed soon. Raising does not reclaim.
    this.#bytes = Infinity;
    try {
      this.#deps.root.write(files.memoryHigh, cgroupNumber(Infinity));
    } catch (error) {
      this.#deps.onError(error);
    }
  }

  /**
   * The guard takes it away while the daemon hangs; and the guard of an earlier one until it sees this one's first beat,
   * which comes after the first line was written.
   */
  #isGone(): boolean {
    // What was written last may not be there yet.
    if (this.#writing || this.#bytes === Infinity) return false;
    return this.#deps.root.numberIfAny(files.memoryHigh) === Infinity;
  }

  /** In the thread pool: lowering it reclaims. */
  #write(bytes: number): void {
    this.#bytes = bytes;
    // One at a time: only the last one counts, and it must come last.
    if (this.#writing) return;
    this.#writing = true;
    this.#deps.root
      .writeOffThread(files.memoryHigh, cgroupNumber(bytes))
      .catch((error: unknown) => this.#deps.onError(error))
      .finally(() => {
        this.#writing = false;
        if (this.#bytes !== undefined && this.#bytes !== bytes) this.#write(this.#bytes);
      });
  }
}
