// SPDX-License-Identifier: Apache-2.0

/** A number out of text, or why the text is not one; the reason completes "«text»: …". */
export type Parsed =
  | { readonly ok: true; readonly value: number }
  | { readonly ok: false; readonly reason: string };

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const TIB = 1024 * GIB;

/**
 * No host has more memory, and every whole number up to here is exact in a double, so that no sum of
 * sizes is ever rounded.
 */
export const MAX_SIZE_BYTES = 1024 * TIB;

/** The longest delay that Node's timers take; more would fire at once. About 24.8 days. */
export const MAX_DURATION_MS = 2 ** 31 - 1;

const SIZE = /^(\d+(?:\.\d+)?)(?:([kmgt])(?:i?b)?|b)?$/i;
const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/;

const SIZE_UNITS: ReadonlyMap<string, number> = new Map([
  ['k', KIB],
  ['m', MIB],
  ['g', GIB],
  ['t', TIB],
]);

const DURATION_UNITS_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1_000],
  ['m', 60_000],
  ['h', 3_600_000],
]);

/**
 * Reads a size: `512M`, `1.5G`, `64KiB`, `4gb`, `1048576`; 1024-based, any case, a bare number is bytes.
 * `max` is Infinity. Part of a byte is dropped. From 1 byte to 1 PiB.
 */
export function parseSize(text: string): Parsed {
  if (text === 'max') return { ok: true, value: Number.POSITIVE_INFINITY };
  const match = SIZE.exec(text);
  if (match === null) return { ok: false, reason: refusal(text, 'not a size such as 512M, 1.5G or max') };
  const unit = SIZE_UNITS.get(match[2]?.toLowerCase() ?? '') ?? 1;
  const bytes = Math.floor(Number(match[1]) * unit);
  if (bytes < 1) return { ok: false, reason: 'less than 1 byte' };
  if (bytes > MAX_SIZE_BYTES) return { ok: false, reason: 'over 1024T' };
  return { ok: true, value: bytes };
}

/**
 * Reads a time: `250ms`, `1.5s`, `10m`, `2h`; a bare number is seconds. In whole milliseconds, part of
 * one dropped. From 1 ms to {@link MAX_DURATION_MS}.
 */
export function parseDuration(text: string): Parsed {
  const match = DURATION.exec(text);
  if (match === null) return { ok: false, reason: refusal(text, 'not a time such as 500ms, 30s, 10m or 2h') };
  const unitMs = DURATION_UNITS_MS.get(match[2] ?? 's') ?? 1_000;
  // Rounded to a microsecond first: 1.001 s is 1000.9999999999999 ms in binary.
  const ms = Math.floor(Math.round(Number(match[1]) * unitMs * 1_000) / 1_000);
  if (ms < 1) return { ok: false, reason: 'less than 1 ms' };
  if (ms > MAX_DURATION_MS) return { ok: false, reason: 'over 596h' };
  return { ok: true, value: ms };
}

function refusal(text: string, otherwise: string): string {
  return /^-[\d.]/.test(text) ? 'negative' : otherwise;
}

/** A size for people: `128 MiB`, `1.5 GiB`, at most one decimal; Infinity is `max`. */
export function formatBytes(bytes: number): string {
  if (bytes === Number.POSITIVE_INFINITY) return 'max';
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Math.max(0, bytes);
  let unit = 0;
  // 1023.95 would be shown as 1024.0: that is 1 of the next unit.
  while (value >= 1023.95 && unit < names.length - 1) {
    value /= KIB;
    unit += 1;
  }
  return `${oneDecimal(value)} ${names[unit]}`;
}

/** A time for people: `12 ms`, `0.4 s`, `12 s`, `1 min 5 s`, `2 h 3 min`. */
export function formatMs(ms: number): string {
  if (ms < 99.5) return `${Math.round(Math.max(0, ms))} ms`;
  if (ms < 9_950) return `${oneDecimal(ms / 1_000)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return pair(minutes, 'min', seconds % 60, 's');
  return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min');
}

/** The size as an intent would say it, in whole units and never less than `bytes`: `256M`, `10G`, `max`. */
export function sizeWord(bytes: number): string {
  if (bytes === Number.POSITIVE_INFINITY) return 'max';
  if (bytes < MIB) return `${Math.max(1, Math.ceil(bytes / KIB))}K`;
  const mib = Math.ceil(bytes / MIB);
  return mib % KIB === 0 ? `${mib / KIB}G` : `${mib}M`;
}

/** The time as an intent would say it, exact to the millisecond: `90s`, `10m`, `2h`. */
export function durationWord(ms: number): string {
  const whole = Math.ceil(ms);
  if (whole % 3_600_000 === 0) return `${whole / 3_600_000}h`;
  if (whole % 60_000 === 0) return `${whole / 60_000}m`;
  if (whole % 1_000 === 0) return `${whole / 1_000}s`;
  return `${whole}ms`;
}

function oneDecimal(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function pair(major: number, majorName: string, minor: number, minorName: string): string {
  return minor === 0 ? `${major} ${majorName}` : `${major} ${majorName} ${minor} ${minorName}`;
}
