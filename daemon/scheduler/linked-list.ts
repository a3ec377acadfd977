// SPDX-License-Identifier: Apache-2.0

/** What an item of a {@link LinkedList} carries for it; null outside of one. */
export interface Linked<T> {
  previous: T | null;
  next: T | null;
}

/**
 * Items in the order in which they were added; adding and removing take O(1). An item may be in one list once.
 *
 * For what comes and goes with each turn, where a Set or Map would do but for garbage: V8 links each of their
 * tables to the one that replaces it, so once a dead table has grown old, all that its successors ever held lives on
 * until a full collection. With those, half of what a turn allocates was copied to the old generation.
 */
export class LinkedList<T extends Linked<T>> {
  #first: T | null = null;
  #last: T | null = null;

  get first(): T | null {
    return this.#first;
  }

  get last(): T | null {
    return this.#last;
  }

  add(item: T): void {
    item.previous = this.#last;
    if (this.#last === null) this.#first = item;
    else this.#last.next = item;
    this.#last = item;
  }

  /** The item must be in this list. */
  remove(item: T): void {
    const { previous, next } = item;
    if (previous === null) this.#first = next;
    else previous.next = next;
    if (next === null) this.#last = previous;
    else next.previous = previous;
    item.previous = null;
    item.next = null;
  }

  /** The item that is looked at may be removed meanwhile, the one after it may not. */
  *[Symbol.iterator](): Generator<T> {
    let item = this.#first;
    while (item !== null) {
      const { next } = item;
      yield item;
      item = next;
    }
  }
}
