// SPDX-License-Identifier: Apache-2.0

/** So many are told of; as many calls as a host has at a time, and some 8 KiB. */
const MAX_PLACES = 512;

export interface FrozenSources {
  /** Every call there is: the cgroup that it has, as the kernel numbers it. */
  readonly calls: () => Iterable<{ readonly place: number; readonly frozen: boolean }>;
  /** @returns whether it is on its way. */
  readonly send: (places: readonly number[]) => boolean;
}

/** Tells the core which places on the host are frozen: an agent that runs in one of them reads nothing. */
export class FrozenFeed {
  readonly #sources: FrozenSources;
  #told = '';

  constructor(sources: FrozenSources) {
    this.#sources = sources;
  }

  /** The core has been started again and knows of none. */
  forget(): void {
    this.#told = '';
  }

  /** Looks, and tells if they are others than before. What cannot be sent is told the next time. */
  tell(): void {
    const places: number[] = [];
    for (const { place, frozen } of this.#sources.calls()) {
      if (frozen && places.length < MAX_PLACES) places.push(place);
    }
    const text = places.join();
    if (text !== this.#told && this.#sources.send(places)) this.#told = text;
  }
}
