// SPDX-License-Identifier: Apache-2.0

/** What the kernel reclaims at a time (SWAP_CLUSTER_MAX). */
const LEAST_PAGES = 32;

/** As long as bursts of builds and tests last at the least (AgentCgroup's measurements). */
const LASTS_MS = 1000;

/** Whether reclaim takes what is needed again, judged from look to look. */
export class Thrashing {
  #pages: number | undefined;
  #seenAtMs = -Infinity;

  /** @param refaultedPages that have ever come back. */
  look(refaultedPages: number, nowMs: number): void {
    if (this.#pages !== undefined && refaultedPages - this.#pages >= LEAST_PAGES) this.#seenAtMs = nowMs;
    this.#pages = refaultedPages;
  }

  lately(nowMs: number): boolean {
    return nowMs - this.#seenAtMs < LASTS_MS;
  }

  forget(): void {
    this.#pages = undefined;
    this.#seenAtMs = -Infinity;
  }
}
