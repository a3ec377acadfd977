// SPDX-License-Identifier: Apache-2.0
import { commandShape } from '../command-shape.ts';
import type { CommandText } from '../command-text.ts';
import type { CallRecord } from '../control/types.ts';
import { advisedHighBytes, type Learned, type Observation, peaksOf } from '../policy/learned.ts';
import { commandOf } from './command.ts';

/** By what runs of a command are known again. */
export interface Origin {
  /** The top of the work tree that it runs in; empty: in none, or not said. */
  readonly repository: string;
  readonly shape: string;
}

/** Longer paths are no keys: such a call counts as one outside of repositories. */
const MAX_REPOSITORY_CHARS = 1024;

/** Null: nothing may be kept of the command, or nothing can be said of it. */
export function originOf(
  request: {
    readonly argv: readonly string[];
    readonly cwd?: string | undefined;
    readonly top?: number | undefined;
  },
  keep: CommandText,
): Origin | null {
  const shape = commandShape(commandOf(request.argv), keep);
  return shape === '' ? null : { repository: repositoryOf(request.cwd, request.top), shape };
}

/** @param top how many directories above cwd the work tree begins. */
function repositoryOf(cwd: string | undefined, top: number | undefined): string {
  if (cwd === undefined || top === undefined || !cwd.startsWith('/')) return '';
  const names = cwd.split('/');
  const repository = names.slice(0, names.length - top).join('/');
  return repository.length > MAX_REPOSITORY_CHARS ? '' : repository;
}

/** What a finished call has shown. What was killed, whoever did it, would have needed as much or more. */
export function observationOf({ memory, outcome, signal }: CallRecord): Observation {
  return { peakBytes: memory.peakBytes, cutShort: outcome !== 'ok' || signal !== null };
}

export interface LearnedDefaultsDeps {
  readonly learned: (filter: Partial<Origin> & { readonly uid?: number }) => AsyncIterable<Learned>;
  readonly settings: () => {
    readonly useAsDefaults: boolean;
    readonly leastRuns: number;
    readonly keepShapes: number;
  };
}

/** How long what changed may wait: many calls of a moment are then asked for together. */
const REFRESH_MS = 1000;

/**
 * What to take for the memory.high of a command of which nobody says anything: kept in memory, since it is
 * asked for before each call, and only while the configuration wants it.
 */
export class LearnedDefaults {
  readonly #deps: LearnedDefaultsDeps;
  readonly #highBytes = new Map<string, number>();
  readonly #changed = new Map<string, Origin & { readonly uid: number }>();
  #loaded = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(deps: LearnedDefaultsDeps) {
    this.#deps = deps;
  }

  /** Undefined: not wanted, or too little is known. */
  highBytes(uid: number, origin: () => Origin | null): number | undefined {
    if (!this.#deps.settings().useAsDefaults) return undefined;
    if (!this.#loaded) this.#load();
    const known = origin();
    return known === null ? undefined : this.#highBytes.get(keyOf(uid, known));
  }

  /** A call has ended and has been given to the store. */
  ran(uid: number, origin: Origin): void {
    if (!this.#deps.settings().useAsDefaults) return;
    this.#changed.set(keyOf(uid, origin), { uid, ...origin });
    this.#timer ??= setTimeout(() => void this.#refresh(), REFRESH_MS).unref();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #load(): void {
    this.#loaded = true;
    this.#take({}).catch(() => {
      // The store has told why; until it answers nobody waits for it.
      this.#loaded = false;
    });
  }

  async #refresh(): Promise<void> {
    const changed = [...this.#changed.values()];
    this.#changed.clear();
    try {
      for (const filter of changed) await this.#take(filter);
    } catch {
      // The store has told why; the next run of the same command asks again.
    }
    this.#timer = undefined;
  }

  async #take(filter: Parameters<LearnedDefaultsDeps['learned']>[0]): Promise<void> {
    const { keepShapes, leastRuns } = this.#deps.settings();
    for await (const learned of this.#deps.learned(filter)) {
      const peaks = learned.observations.length < leastRuns ? null : peaksOf(learned.observations);
      if (peaks === null) continue;
      const key = keyOf(learned.uid, learned);
      // Again at the end: what has not run for longest goes first.
      this.#highBytes.delete(key);
      this.#highBytes.set(key, advisedHighBytes(peaks, Number.POSITIVE_INFINITY));
      const oldest = this.#highBytes.keys().next().value;
      if (this.#highBytes.size > keepShapes && oldest !== undefined) this.#highBytes.delete(oldest);
    }
  }
}

function keyOf(uid: number, { repository, shape }: Origin): string {
  return `${uid}\0${repository}\0${shape}`;
}
