// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import type { Cgroup } from '../../kernel/cgroup.ts';
import { files } from '../../kernel/files.ts';
import type { Native, Watch } from '../../kernel/native.ts';
import { awakeBytes, LEAST_OVER_BYTES } from '../../policy/shortage.ts';
import { cgroupNumber } from '../limit-files.ts';

export interface PoolTripwireDeps {
  readonly native: Native;
  /** Of all calls. */
  readonly root: Cgroup;
  readonly onError: (error: unknown) => void;
}

/** What the place of the tripwire depends on. */
export interface TripwireUse {
  readonly budgetBytes: number;
  /** Of the lines of the calls that there are; infinite where nobody could make room for another. */
  readonly lowestLineBytes: number;
  /** What all calls use, page cache too; 0 while that does not matter. */
  readonly currentBytes: number;
  /** What the host could bear beyond the budget. */
  readonly hostRoomBytes: number;
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

  /**
   * It is at the lowest line of a call, where the kernel has to look who charges; for a call that is alone it is near the
   * budget. Who may go on beyond it would sleep there, so it follows the usage, a little behind; within the budget, or what
   * the host can bear.
   */
  set({ budgetBytes, lowestLineBytes, currentBytes, hostRoomBytes }: TripwireUse): void {
    const awake = awakeBytes(budgetBytes);
    const most = hostRoomBytes >= LEAST_OVER_BYTES ? Infinity : awake;
    const behind = Math.min(currentBytes - (budgetBytes - awake) / 2, most);
    const least = Math.min(lowestLineBytes, awake);
    const bytes = Math.floor(Math.max(least, behind));
    const near = (budgetBytes - awake) / 8;
    const stands = this.#bytes !== undefined && Math.abs(bytes - this.#bytes) <= near;
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
