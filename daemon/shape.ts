// SPDX-License-Identifier: Apache-2.0
/*
 * What JSON from outside has to look like, said in as few words as it has fields. A library for this stays resident
 * with all that it could check as well: zod took 6 MB of the daemon.
 */

/** Gives back what it knows of a JSON value, and undefined for a value that does not look so. */
export type Shape<T> = (value: unknown) => T | undefined;

/** What a shape gives back. */
export type Of<S extends Shape<unknown>> = Exclude<ReturnType<S>, undefined>;

type Fields = Readonly<Record<string, Shape<unknown>>>;
type Known<R extends Fields, O extends Fields> = { readonly [Name in keyof R]: Of<R[Name]> } & {
  readonly [Name in keyof O]?: Of<O[Name]>;
};

/** @param maxChars in UTF-16 units. */
export function text(maxChars = Number.POSITIVE_INFINITY): Shape<string> {
  return (value) => (typeof value === 'string' && value.length <= maxChars ? value : undefined);
}

/** Finite: JSON has no other number, but 1e999 is read as Infinity. */
export const number: Shape<number> = (value) =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined;

/** A whole number between two others, both included. */
export function whole(min: number, max: number): Shape<number> {
  return (value) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : undefined;
}

export const flag: Shape<boolean> = (value) => (typeof value === 'boolean' ? value : undefined);

export function oneOf<const V extends string | number>(...values: readonly V[]): Shape<V> {
  return (value) => values.find((each) => each === value);
}

export function orNull<T>(shape: Shape<T>): Shape<T | null> {
  return (value) => (value === null ? null : shape(value));
}

export function list<T>(shape: Shape<T>, maxItems = Number.POSITIVE_INFINITY): Shape<readonly T[]> {
  return (value) => {
    if (!Array.isArray(value) || value.length > maxItems) return undefined;
    const items: T[] = [];
    for (const each of value) {
      const item = shape(each);
      if (item === undefined) return undefined;
      items.push(item);
    }
    return items;
  };
}

/** An object with at least these fields; others that it has are left out. */
export function fields<R extends Fields, O extends Fields = Record<never, never>>(
  required: R,
  optional?: O,
): Shape<Known<R, O>> {
  const all = [
    ...Object.entries(required).map(([name, shape]) => ({ name, shape, needed: true })),
    ...Object.entries(optional ?? {}).map(([name, shape]) => ({ name, shape, needed: false })),
  ];
  return (value) => {
    if (!isObject(value)) return undefined;
    const known: Record<string, unknown> = {};
    for (const { name, shape, needed } of all) {
      if (!needed && !Object.hasOwn(value, name)) continue;
      const field = shape(value[name]);
      if (field === undefined) return undefined;
      known[name] = field;
    }
    return known as Known<R, O>;
  };
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
