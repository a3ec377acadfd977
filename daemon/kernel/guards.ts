// SPDX-License-Identifier: Apache-2.0
import { messageOf } from '../errors.ts';
import { Guard } from './guard.ts';

/** A guard that ends is started again, but not in a loop that eats a CPU. */
const RESTART_MS = 1000;

export interface GuardsOptions {
  readonly heartbeatPath: string;
  /** One has ended although nobody asked it to. */
  readonly onEnded: (reason: string) => void;
  /** The helper was not built or installed. */
  readonly onMissing: () => void;
}

interface Guarded {
  guard: Guard | undefined;
  timer: NodeJS.Timeout | undefined;
}

/** One guard for each root, for as long as it is one. */
export class Guards {
  readonly #options: GuardsOptions;
  readonly #guarded = new Map<string, Guarded>();

  constructor(options: GuardsOptions) {
    this.#options = options;
  }

  /** @param pinDir where the programs of this root are pinned, if there are any. */
  start(rootPath: string, pinDir: string): void {
    const guarded: Guarded = { guard: undefined, timer: undefined };
    this.#guarded.set(rootPath, guarded);
    this.#run(guarded, rootPath, pinDir);
  }

  /** Dismisses one; only when nothing below its root is frozen any more. */
  async stop(rootPath: string): Promise<void> {
    const guarded = this.#guarded.get(rootPath);
    this.#guarded.delete(rootPath);
    clearTimeout(guarded?.timer);
    await guarded?.guard?.stop();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#guarded.keys()].map((rootPath) => this.stop(rootPath)));
  }

  #run(guarded: Guarded, rootPath: string, pinDir: string): void {
    const again = (reason: string): void => {
      this.#options.onEnded(reason);
      guarded.timer = setTimeout(() => this.#run(guarded, rootPath, pinDir), RESTART_MS);
    };
    const { heartbeatPath } = this.#options;
    try {
      guarded.guard = Guard.start({ rootPath, heartbeatPath, pinDir, onExit: again });
    } catch (error) {
      // No memory or no process to be had: that may change.
      again(messageOf(error));
      return;
    }
    if (guarded.guard === undefined) this.#options.onMissing();
  }
}
