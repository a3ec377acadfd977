// SPDX-License-Identifier: Apache-2.0
import { Counter, type Registry } from '../prometheus.ts';

export interface TallyOptions<L extends string> {
  readonly name: string;
  readonly help: string;
  /** The name of its one label, and the values that are there from the start, at 0. */
  readonly label?: { readonly name: string; readonly values: readonly L[] };
}

/** A counter that can be read back at once, for `agentrm status`; prom-client's can not. */
export class Tally<L extends string = never> {
  readonly #counts = new Map<L | '', number>();

  constructor(registry: Registry, { name, help, label }: TallyOptions<L>) {
    for (const value of label?.values ?? ['' as const]) this.#counts.set(value, 0);
    const counts = this.#counts;
    new Counter({
      name,
      help,
      registers: [registry],
      labelNames: label === undefined ? [] : [label.name],
      collect() {
        this.reset();
        for (const [value, count] of counts) {
          if (label === undefined) this.inc(count);
          else this.inc({ [label.name]: value }, count);
        }
      },
    });
  }

  /** @param value of the label, if there is one. */
  add(amount: number, value: L | '' = ''): void {
    this.#counts.set(value, (this.#counts.get(value) ?? 0) + amount);
  }

  /** Of one value of the label, or of all. */
  total(value?: L): number {
    if (value !== undefined) return this.#counts.get(value) ?? 0;
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }
}
