// SPDX-License-Identifier: Apache-2.0
import type { Native } from '../kernel/native.ts';
import { ProcessEnds } from '../kernel/process-ends.ts';
import type { Log } from '../log.ts';
import type { Call } from './call.ts';

/** What failed for want of descriptors is tried again. */
const RETRY_MS = 1000;

export interface WrapperLookoutDeps {
  readonly native: Native;
  readonly log: Log;
  /** The wrapper of a live call has ended without a word. It may be told during watch(). */
  readonly onLost: (call: Call) => void;
}

/** Looks out for the ends of wrappers that have no connection: they were killed, or will come back. */
export class WrapperLookout {
  readonly #deps: WrapperLookoutDeps;
  readonly #ends: ProcessEnds;
  /** What ends the look-out, by its call. */
  readonly #stops = new Map<Call, () => void>();
  #closed = false;

  constructor(deps: WrapperLookoutDeps) {
    this.#deps = deps;
    this.#ends = new ProcessEnds(deps.native);
  }

  watch(call: Call): void {
    if (this.#closed || call.phase !== 'live' || this.#stops.has(call)) return;
    let stop: (() => void) | undefined;
    try {
      stop = this.#ends.watch(call.wrapper, () => {
        this.#stops.delete(call);
        this.#deps.onLost(call);
      });
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'wrapper not watched');
      const timer = setTimeout(() => {
        this.#stops.delete(call);
        this.watch(call);
      }, RETRY_MS);
      stop = () => clearTimeout(timer);
    }
    if (stop === undefined) this.#deps.onLost(call);
    else this.#stops.set(call, stop);
  }

  stop(call: Call): void {
    this.#stops.get(call)?.();
    this.#stops.delete(call);
  }

  close(): void {
    this.#closed = true;
    for (const call of [...this.#stops.keys()]) this.stop(call);
  }
}
