// SPDX-License-Identifier: Apache-2.0

/**
 * A binary heap whose items can be removed and moved from anywhere: each item carries its index, in a field of its
 * own for each heap that it may be in. Adding, removing and moving take O(log n). An item may be in it once.
 */
export class Heap<Field extends string, T extends { [F in Field]?: number }> {
  readonly #field: Field;
  readonly #before: (a: T, b: T) => boolean;
  readonly #items: T[] = [];

  /**
   * @param field of the items, for their index; nobody else writes it
   * @param before whether the first comes out before the second; neither, if they are equal.
   */
  constructor(field: Field, before: (a: T, b: T) => boolean) {
    this.#field = field;
    this.#before = before;
  }

  get size(): number {
    return this.#items.length;
  }

  has(item: T): boolean {
    return this.#indexOf(item) !== undefined;
  }

  /** In no particular order. */
  [Symbol.iterator](): IterableIterator<T> {
    return this.#items.values();
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  /** @throws Error if the item is in it already. */
  push(item: T): void {
    if (this.has(item)) throw new Error('in the heap already');
    this.#items.push(item);
    this.#put(this.#items.length - 1, item);
    this.#up(this.#items.length - 1);
  }

  pop(): T | undefined {
    const first = this.#items[0];
    if (first !== undefined) this.remove(first);
    return first;
  }

  /** @returns whether it was in it. */
  remove(item: T): boolean {
    const index = this.#indexOf(item);
    if (index === undefined) return false;
    const last = this.#items.pop() as T;
    if (index < this.#items.length) {
      this.#put(index, last);
      this.#restore(index);
    }
    return true;
  }

  /** The item's key has changed: puts it where it belongs. Without effect if it is not in it. */
  move(item: T): void {
    const index = this.#indexOf(item);
    if (index !== undefined) this.#restore(index);
  }

  /** All keys may have changed. */
  rebuild(): void {
    for (let index = (this.#items.length >> 1) - 1; index >= 0; index -= 1) this.#down(index);
  }

  #restore(index: number): void {
    if (!this.#up(index)) this.#down(index);
  }

  #up(from: number): boolean {
    const item = this.#items[from] as T;
    let index = from;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = this.#items[parent] as T;
      if (!this.#before(item, above)) break;
      this.#put(index, above);
      index = parent;
    }
    this.#put(index, item);
    return index !== from;
  }

  #down(from: number): void {
    const item = this.#items[from] as T;
    const size = this.#items.length;
    let index = from;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= size) break;
      if (child + 1 < size && this.#before(this.#items[child + 1] as T, this.#items[child] as T)) child += 1;
      const below = this.#items[child] as T;
      if (!this.#before(below, item)) break;
      this.#put(index, below);
      index = child;
    }
    this.#put(index, item);
  }

  #put(index: number, item: T): void {
    this.#items[index] = item;
    (item as { [F in Field]?: number })[this.#field] = index;
  }

  /** What an item carries may be from another heap, or from before it was removed. */
  #indexOf(item: T): number | undefined {
    const index: number | undefined = item[this.#field];
    return index !== undefined && this.#items[index] === item ? index : undefined;
  }
}
