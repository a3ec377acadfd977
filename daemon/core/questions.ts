// SPDX-License-Identifier: Apache-2.0

/** Questions come from people and scrapers, who wait seconds; a core that is busy for longer is not waited for. */
const ANSWER_MS = 1_000;
const MAX_QUESTIONS = 64;

/** What the core can be asked. */
export type QuestionKind = 'ask' | 'configure';

/** Questions to the core that have no answer yet. Each has one in the end: what comes, or nothing if it has ended. */
export class Questions {
  readonly #send: (kind: QuestionKind, text: string) => boolean;
  readonly #open = new Map<number, (text: string) => void>();
  #asked = 0;

  /** @param send returns whether it is on its way; the text begins with the question's number. */
  constructor(send: (kind: QuestionKind, text: string) => boolean) {
    this.#send = send;
  }

  /** @returns empty if there is no answer in time, or too many questions wait for theirs. */
  ask(what: string): Promise<string> {
    if (this.#open.size >= MAX_QUESTIONS) return Promise.resolve('');
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#open.get(number)?.(''), ANSWER_MS);
      const number = this.put('ask', what, (text) => {
        clearTimeout(timer);
        resolve(text);
      });
    });
  }

  /**
   * However long the answer takes.
   * @param settle called once: with the answer, or with nothing if it cannot be asked or has ended. @returns its number.
   */
  put(kind: QuestionKind, text: string, settle: (text: string) => void): number {
    this.#asked += 1;
    const number = this.#asked;
    this.#open.set(number, (answer) => {
      this.#open.delete(number);
      settle(answer);
    });
    if (!this.#send(kind, `${number} ${text}`)) this.#open.get(number)?.('');
    return number;
  }

  /** Without effect if nobody waits for it. */
  answered(number: number, text: string): void {
    this.#open.get(number)?.(text);
  }

  /** The core has ended: nobody answers any more. */
  end(): void {
    for (const settle of this.#open.values()) settle('');
  }
}
