// SPDX-License-Identifier: Apache-2.0
import * as z from 'zod';
import { type Intent, parseIntent, quoteWord } from '../toolcall/intent.ts';
import { type Parsed, parseDuration, parseSize } from '../units.ts';

/*
 * The kinds of values that the configuration has. All of them come as text: the files are read without
 * YAML's guesses at types, and the environment and the command line have no others.
 */

/** sun_path of a unix socket address, less its terminating zero. */
const SOCKET_PATH_MAX_BYTES = 107;
/** PATH_MAX. */
const PATH_MAX_BYTES = 4096;

/** A size as in an intent, in bytes. */
export function size() {
  return text(parseSize);
}

/** The same, and 0 for nothing. */
export function sizeOrNone() {
  return text((value): Parsed => (value === '0' ? { ok: true, value: 0 } : parseSize(value)));
}

/** A time as in an intent, in milliseconds. */
export function duration() {
  return text(parseDuration);
}

/** A time of at least a second in milliseconds, or null for `off`. */
export function offOrDuration() {
  return z.string().transform((value, context) => {
    if (value === 'off') return null;
    const milliseconds = convert(value, context, parseDuration);
    return milliseconds >= 1_000 ? milliseconds : refuse(context, `${quoteWord(value)}: less than a second`);
  });
}

/** A size, or null for `auto`: what it is then depends on the host. */
export function autoSize() {
  return z
    .string()
    .transform((value, context) => (value === 'auto' ? null : convert(value, context, parseSize)));
}

/** A whole number between two others, both included. */
export function whole(min: number, max: number) {
  return text((value) => {
    const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
    if (number >= min && number <= max) return { ok: true, value: number };
    return { ok: false, reason: `not a whole number from ${min} to ${max}` };
  });
}

/** A whole number between two others, both included, or null for `off`. */
export function offOrWhole(min: number, max: number) {
  return z.string().transform((value, context) => {
    if (value === 'off') return null;
    const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
    if (number >= min && number <= max) return number;
    return refuse(context, `${quoteWord(value)}: not off or a whole number from ${min} to ${max}`);
  });
}

/** A number between two others, both included, decimals allowed. */
export function decimal(min: number, max: number) {
  return text((value) => {
    const number = /^\d{1,15}(\.\d{1,15})?$/.test(value) ? Number(value) : Number.NaN;
    if (number >= min && number <= max) return { ok: true, value: number };
    return { ok: false, reason: `not a number from ${min} to ${max}` };
  });
}

/** `true` or `false`. */
export function flag() {
  return z.enum(['true', 'false']).transform((value) => value === 'true');
}

/** An absolute path. */
export function path() {
  return z.string().refine(isPath, { error: ({ input }) => `${quoted(input)}: not an absolute path` });
}

/** An absolute path, or null for `auto`. */
export function autoPath() {
  return pathOr('auto', PATH_MAX_BYTES);
}

/** An absolute path, or null for `off`. */
export function offOrPath() {
  return pathOr('off', PATH_MAX_BYTES);
}

/** An absolute path to which a unix socket can be bound, or null for `auto`. */
export function socketPath() {
  return pathOr('auto', SOCKET_PATH_MAX_BYTES);
}

/** Limits, in the words of an intent. */
export function limits() {
  return z.string().transform((value, context): Intent => {
    const parsed = parseIntent(value);
    if (parsed.ok) return parsed.intent;
    return refuse(context, `${parsed.word}: ${parsed.reason}`);
  });
}

/** `ADDRESS:PORT` to listen on, or null for `off`. An IPv6 address is in brackets. */
export function listenAddress() {
  return z.string().transform((value, context) => {
    if (value === 'off') return null;
    const match = /^(\[[\da-f:.]{2,45}\]|[\w.-]{1,253}):(\d{1,5})$/i.exec(value);
    const port = Number(match?.[2]);
    if (match?.[1] === undefined || port < 1 || port > 65_535) {
      return refuse(context, `${quoteWord(value)}: not ADDRESS:PORT or off`);
    }
    return { host: match[1].replace(/^\[|\]$/g, ''), port };
  });
}

function pathOr(word: string, maxBytes: number) {
  return z
    .string()
    .refine((value) => value === word || isPath(value), {
      error: ({ input }) => `${quoted(input)}: not an absolute path or ${word}`,
    })
    .refine((value) => Buffer.byteLength(value) <= maxBytes, { error: `longer than ${maxBytes} bytes` })
    .transform((value) => (value === word ? null : value));
}

function text(parse: (value: string) => Parsed) {
  return z.string().transform((value, context) => convert(value, context, parse));
}

function convert(value: string, context: z.RefinementCtx, parse: (value: string) => Parsed): number {
  const parsed = parse(value);
  return parsed.ok ? parsed.value : refuse(context, `${quoteWord(value)}: ${parsed.reason}`);
}

/** Reports a value that cannot be used; no value takes its place. */
export function refuse(context: z.RefinementCtx, message: string): never {
  context.addIssue({ code: 'custom', message });
  return z.NEVER;
}

function isPath(value: string): boolean {
  return value.startsWith('/') && !value.includes('\0');
}

function quoted(input: unknown): string {
  return quoteWord(String(input));
}
