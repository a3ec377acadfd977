// SPDX-License-Identifier: Apache-2.0

/**
 * A map that holds so many entries and forgets the one that was used longest ago. What clients can make keys
 * of (sessions, requests) must not grow without end.
 */
export class RecentMap<K, V> {
  readonly #capacity: number;
  readonly #keep: (value: V) => boolean;
  readonly #onEvict: (value: V) => void;
  readonly #entries = new Map<K, V>();

  /**
   * @param onEvict counts what was forgotten.
   * @param keep entries that must stay, because they are in use: the map grows over its capacity for them.
   */
  constructor(capacity: number, onEvict: (value: V) => void, keep: (value: V) => boolean = () => false) {
    this.#capacity = capacity;
    this.#onEvict = onEvict;
    this.#keep = keep;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Looks without counting as use. */
  peek(key: K): V | undefined {
    return this.#entries.get(key);
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  set(key: K, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= this.#capacity) return;
    for (const [oldest, old] of this.#entries) {
      if (oldest === key || this.#keep(old)) continue;
      this.#entries.delete(oldest);
      this.#onEvict(old);
      return;
    }
  }

  delete(key: K): boolean {
    return this.#entries.delete(key);
  }

  entries(): IterableIterator<[K, V]> {
    return this.#entries.entries();
  }

  values(): IterableIterator<V> {
    return this.#entries.values();
  }
}
