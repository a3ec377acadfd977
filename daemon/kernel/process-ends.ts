// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import { errnoOf } from '../errors.ts';
import type { Native, Watch } from './native.ts';
import { isAlive, type ProcessId } from './proc.ts';

interface Watched {
  readonly pidfd: number;
  readonly watch: Watch;
  readonly listeners: Set<() => void>;
}

/** Tells when processes end. Each is held by one pidfd, however many wait for it. */
export class ProcessEnds {
  readonly #native: Native;
  readonly #watched = new Map<string, Watched>();

  constructor(native: Native) {
    this.#native = native;
  }

  /**
   * @param onEnd called once when the process has ended, never during this call.
   * @returns what ends the wait; undefined if the process has ended already.
   * @throws Error with errno if it cannot be watched, for want of descriptors say.
   */
  watch(id: ProcessId, onEnd: () => void): (() => void) | undefined {
    const key = `${id.pid}-${id.startTicks}`;
    const watched = this.#watched.get(key) ?? this.#hold(key, id);
    if (watched === undefined) return undefined;
    // Of its own, so that the same function can wait twice.
    const listener = () => onEnd();
    watched.listeners.add(listener);
    return () => {
      watched.listeners.delete(listener);
      if (watched.listeners.size === 0 && this.#watched.get(key) === watched) this.#release(key, watched);
    };
  }

  close(): void {
    for (const [key, watched] of this.#watched) this.#release(key, watched);
  }

  #hold(key: string, id: ProcessId): Watched | undefined {
    let pidfd: number;
    try {
      pidfd = this.#native.pidfdOpen(id.pid);
    } catch (error) {
      if (errnoOf(error) === 'ESRCH') return undefined;
      throw error;
    }
    try {
      // Checked with the pidfd in hand: before, the pid could have been recycled.
      if (isAlive(id)) {
        const watch = this.#native.watch(pidfd, 'readable', () => {
          this.#release(key, watched);
          for (const listener of watched.listeners) listener();
        });
        const watched = { pidfd, watch, listeners: new Set<() => void>() };
        this.#watched.set(key, watched);
        return watched;
      }
    } catch (error) {
      closeSync(pidfd);
      throw error;
    }
    closeSync(pidfd);
    return undefined;
  }

  #release(key: string, { pidfd, watch }: Watched): void {
    this.#watched.delete(key);
    watch.close();
    closeSync(pidfd);
  }
}
