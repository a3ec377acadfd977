// SPDX-License-Identifier: Apache-2.0
import { formatMs } from '../units.ts';

/** How long ago a time of day was: `5 s`, `2 h 3 min`, `3 d`. */
export function age(time: string, nowMs: number): string {
  const ms = nowMs - Date.parse(time);
  if (!Number.isFinite(ms)) return '-';
  const days = Math.floor(ms / 86_400_000);
  return days >= 2 ? `${days} d` : formatMs(Math.floor(Math.max(0, ms) / 1000) * 1000);
}

/** `2026-01-31 13:45:01.123` where the reader is. */
export function localTime(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return '-';
  const two = (number: number) => String(number).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${clock}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}
