// SPDX-License-Identifier: Apache-2.0
import { errnoOf } from '../errors.ts';
import { childrenOfThreads, hasItsNumber, type ProcessId } from '../kernel/proc.ts';
import type { Log } from '../log.ts';
import type { Bringing } from './bringing.ts';
import type { Call } from './call.ts';
import type { CallRoots } from './call-roots.ts';

/** Passes over one tree. One that still has others in it after so many makes them faster than they can be moved. */
const PASSES = 8;

export interface LateTreesDeps {
  readonly bringing: Bringing;
  readonly roots: Pick<CallRoots, 'isManaged'>;
  readonly log: Log;
}

/**
 * Moves the trees of commands that were started before the answer came. From however many calls they are, one process
 * is looked at at a time, from each call in turn: what makes calls late is a host that is slow already.
 */
export class LateTrees {
  readonly #deps: LateTreesDeps;
  #steps: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(deps: LateTreesDeps) {
    this.#deps = deps;
  }

  /**
   * Moves all that there is below the wrapper, until nothing is found that was not seen before. A process whose parent
   * ended before it was found is not below it any more, and stays where it is.
   */
  async move(call: Call): Promise<void> {
    const seen = new Set<string>();
    for (let pass = 0; pass < PASSES; pass += 1) if (!(await this.#pass(call, seen))) return;
  }

  close(): void {
    this.#closed = true;
  }

  /** @returns whether it found any that was not there before. */
  async #pass(call: Call, seen: Set<string>): Promise<boolean> {
    const seenBefore = seen.size;
    const found = await this.#inTurn(() => childrenOfThreads(call.wrapper));
    // It grows meanwhile.
    for (const process of found) {
      const children = await this.#inTurn(async () => {
        if (this.#closed || call.phase !== 'live') return [];
        await this.#take(process, call, seen);
        // After it was moved: what it forks from then on is born in the call.
        return await childrenOfThreads(process);
      });
      for (const child of children) found.push(child);
    }
    return seen.size > seenBefore;
  }

  async #take(process: ProcessId, call: Call, seen: Set<string>): Promise<void> {
    const { bringing, roots, log } = this.#deps;
    const { pid, startTicks } = process;
    try {
      // A call of its own, of a wrapper below, stays one.
      if (roots.isManaged(pid)) return;
      seen.add(`${pid}-${startTicks}`);
      await bringing.bring(pid, call, () => hasItsNumber(process));
    } catch (error) {
      if (errnoOf(error) !== 'ESRCH') log.error({ err: error, call: call.id, pid }, 'process not moved');
    }
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#steps.then(step);
    this.#steps = done.catch(() => {});
    return done;
  }
}
