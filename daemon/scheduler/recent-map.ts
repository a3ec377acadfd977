// SPDX-License-Identifier: Apache-2.0
import { type Linked, LinkedList } from './linked-list.ts';

interface Entry<K, V> extends Linked<Entry<K, V>> {
  readonly key: K;
  value: V;
}

/**
 * A map that holds so many entries and forgets the one that was used longest ago. What clients can make keys
 * of (sessions, requests) must not grow without end.
 */
export class RecentMap<K, V> {
  readonly #capacity: number;
  readonly #keep: (value: V) => boolean;
  readonly #onEvict: (value: V) => void;
  readonly #entries = new Map<K, Entry<K, V>>();
  /** In the order of use. */
  readonly #order = new LinkedList<Entry<K, V>>();

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
    return this.#entries.get(key)?.value;
  }

  get(key: K): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#used(entry);
    return entry.value;
  }

  set(key: K, value: V): void {
    const known = this.#entries.get(key);
    if (known !== undefined) {
      known.value = value;
      this.#used(known);
      return;
    }
    const entry: Entry<K, V> = { key, value, previous: null, next: null };
    this.#entries.set(key, entry);
    this.#order.add(entry);
    if (this.#entries.size <= this.#capacity) return;
    for (const old of this.#order) {
      if (old === entry || this.#keep(old.value)) continue;
      this.delete(old.key);
      this.#onEvict(old.value);
      return;
    }
  }

  delete(key: K): boolean {
    const entry = this.#entries.get(key);
    if (entry === undefined) return false;
    this.#order.remove(entry);
    return this.#entries.delete(key);
  }

  /** The one that was used longest ago first. */
  entries(): (readonly [K, V])[] {
    return Array.from(this.#order, ({ key, value }) => [key, value] as const);
  }

  /** As {@link entries}. */
  values(): V[] {
    return Array.from(this.#order, ({ value }) => value);
  }

  #used(entry: Entry<K, V>): void {
    if (entry === this.#order.last) return;
    this.#order.remove(entry);
    this.#order.add(entry);
  }
}
