// SPDX-License-Identifier: Apache-2.0
import type { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import type { CallClass } from './intent.ts';

/**
 * memory.low of sessions, by the most important class of their calls so far. A cgroup is protected no more than the one
 * above it (cgroup-v2.rst), so the root has the sum: more would protect whatever the calls use, where the hierarchy is
 * mounted with memory_recursiveprot.
 */
export class Guarantees {
  readonly #root: Cgroup;
  readonly #settings: () => Readonly<Record<CallClass, number>>;
  readonly #onError: (error: unknown) => void;
  readonly #bytes = new Map<number, number>();

  /** @param onError told of what the kernel refuses: protection is a help, and no call fails for want of it. */
  constructor(
    root: Cgroup,
    settings: () => Readonly<Record<CallClass, number>>,
    onError: (error: unknown) => void,
  ) {
    this.#root = root;
    this.#settings = settings;
    this.#onError = onError;
  }

  /** A session has a call of this class. */
  raise(session: Cgroup, callClass: CallClass): void {
    const bytes = this.#settings()[callClass];
    if (bytes <= this.of(session)) return;
    this.#bytes.set(session.id, bytes);
    this.#write(session, bytes);
    this.#writeSum();
  }

  /** The session's cgroup has gone. */
  drop(session: Cgroup): void {
    if (this.#bytes.delete(session.id)) this.#writeSum();
  }

  /** What a session is guaranteed. */
  of(session: Cgroup): number {
    return this.#bytes.get(session.id) ?? 0;
  }

  #writeSum(): void {
    let bytes = 0;
    for (const each of this.#bytes.values()) bytes += each;
    this.#write(this.#root, bytes);
  }

  #write(cgroup: Cgroup, bytes: number): void {
    try {
      cgroup.write(files.memoryLow, String(bytes));
    } catch (error) {
      this.#onError(error);
    }
  }
}
