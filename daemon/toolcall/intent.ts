// SPDX-License-Identifier: Apache-2.0
import { parseDuration, parseSize } from '../units.ts';

/** Best first: where a call's turn starts in the queue and what weight the call gets. */
export const CALL_CLASSES = ['interactive', 'subagent', 'background'] as const;
export type CallClass = (typeof CALL_CLASSES)[number];

/** CPU time that may be used in each period, as in cpu.max; a quota of Infinity is `max`. */
export interface CpuMax {
  readonly quotaUs: number;
  readonly periodUs: number;
}

/** What a call declares that it needs. Absent: says nothing about it. Infinity: `max`. */
export interface Intent {
  readonly memoryHighBytes?: number;
  readonly memoryMaxBytes?: number;
  readonly swapMaxBytes?: number;
  /** {@link IDLE_WEIGHT}: cpu.idle. */
  readonly cpuWeight?: number;
  readonly cpuMax?: CpuMax;
  readonly ioWeight?: number;
  readonly pidsMax?: number;
  readonly timeoutMs?: number;
  readonly class?: CallClass;
}

/** One bad word voids the whole intent; `word` is quoted, escaped and short enough for a log line. */
export type ParsedIntent =
  | { readonly ok: true; readonly intent: Intent }
  | { readonly ok: false; readonly word: string; readonly reason: string };

/** The kernel's default cpu.max period (Documentation/admin-guide/cgroup-v2.rst); it takes 1 ms to 1 s. */
const CPU_PERIOD_US = 100_000;
const CPU_PERIOD_MIN_US = 1_000;
const CPU_PERIOD_MAX_US = 1_000_000;
/** The kernel refuses shorter quotas (`min_cfs_quota_period`). */
const CPU_QUOTA_MIN_US = 1_000;
/** More CPUs than a kernel is built for (NR_CPUS is at most 8192): beyond it is a slip of the pen. */
const CPU_QUOTA_MAX_PERCENT = 8192 * 100;
/** The kernel's range of cpu.weight and io.weight; 100 is its default. */
const WEIGHT_MAX = 10_000;
/**
 * `cpu.weight=idle`, as systemd has it (CPUWeight=idle): below every weight. The kernel runs such a cgroup when nobody
 * else wants the CPU, and for a three-hundredth of the time where somebody always does.
 */
export const IDLE_WEIGHT = 0;
/** PID_MAX_LIMIT on 64 bits: no kernel has more tasks. */
export const MOST_TASKS = 4_194_304;

/** Long enough for every valid word, short enough for one line on a terminal. */
const QUOTED_CHARS = 64;

type Value<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly reason: string };
type Writable = { -readonly [K in keyof Intent]: Intent[K] };
/** The field that a key sets, with the reader of exactly that field's type. */
type Field = {
  [K in keyof Intent]-?: readonly [name: K, read: (text: string) => Value<NonNullable<Intent[K]>>];
}[keyof Intent];

const fields: ReadonlyMap<string, Field> = new Map<string, Field>([
  ['memory.high', ['memoryHighBytes', parseSize]],
  ['memory.max', ['memoryMaxBytes', parseSize]],
  ['memory.swap.max', ['swapMaxBytes', parseSwap]],
  ['cpu.weight', ['cpuWeight', parseCpuWeight]],
  ['cpu.max', ['cpuMax', parseCpuMax]],
  ['io.weight', ['ioWeight', parseWeight]],
  ['pids.max', ['pidsMax', parsePids]],
  ['timeout', ['timeoutMs', parseDuration]],
  ['class', ['class', parseClass]],
]);

/**
 * Reads an intent: `key=value` words between white space, such as
 * `memory.high=1G memory.max=2G cpu.weight=50 cpu.max=150% pids.max=512 timeout=10m class=background`.
 * Keys are spelled as here; no text at all is an intent that says nothing. The time taken is linear in
 * the length of the text, which may be anything: no part of it is ever executed or interpreted.
 */
export function parseIntent(text: string): ParsedIntent {
  const intent: Writable = {};
  let highWord = '';
  for (const [word] of text.matchAll(/[^ \t\r\n]+/g)) {
    const equals = word.indexOf('=');
    if (equals <= 0) return bad(word, 'not key=value');
    const key = word.slice(0, equals);
    const field = fields.get(key);
    if (field === undefined) return bad(word, 'unknown key');
    const [name, read] = field;
    if (name in intent) return bad(word, 'given twice');
    const value = read(word.slice(equals + 1));
    if (!value.ok) return bad(word, value.reason);
    Object.assign(intent, { [name]: value.value });
    if (key === 'memory.high') highWord = word;
  }
  if ((intent.memoryHighBytes ?? 0) > (intent.memoryMaxBytes ?? Number.POSITIVE_INFINITY)) {
    return bad(highWord, 'over memory.max');
  }
  return { ok: true, intent };
}

/**
 * The word in double quotes for a log or a terminal: printable ASCII as it is, all else as `\xNN` or
 * `\u{…}`, so that no control sequence gets through; at most `limit` characters, `…` where it was cut.
 */
export function quoteWord(word: string, limit = QUOTED_CHARS): string {
  let quoted = '"';
  for (const char of word) {
    const next = escapeChar(char);
    // Room for the closing quote and the mark of a cut.
    if (quoted.length + next.length > limit - 2) return `${quoted}…"`;
    quoted += next;
  }
  return `${quoted}"`;
}

function escapeChar(char: string): string {
  if (char === '"' || char === '\\') return `\\${char}`;
  const code = char.codePointAt(0) ?? 0;
  if (code >= 0x20 && code < 0x7f) return char;
  return code <= 0xff ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
}

function bad(word: string, reason: string): ParsedIntent {
  return { ok: false, word: quoteWord(word), reason };
}

/** As a size, but 0 has a meaning here: no swap at all, which a rule may have allowed. */
function parseSwap(text: string): Value<number> {
  return text === '0' ? { ok: true, value: 0 } : parseSize(text);
}

function parseWhole(text: string, max: number): Value<number> {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (value < 1 || value > max) return { ok: false, reason: `not a whole number from 1 to ${max}` };
  return { ok: true, value };
}

function parseWeight(text: string): Value<number> {
  return parseWhole(text, WEIGHT_MAX);
}

function parseCpuWeight(text: string): Value<number> {
  if (text === 'idle') return { ok: true, value: IDLE_WEIGHT };
  const value = parseWeight(text);
  return value.ok ? value : { ok: false, reason: `${value.reason} or idle` };
}

function parsePids(text: string): Value<number> {
  return text === 'max' ? { ok: true, value: Number.POSITIVE_INFINITY } : parseWhole(text, MOST_TASKS);
}

/**
 * `150%` is one and a half CPUs, `150000/100000` the same in the kernel's own terms (quota and period in
 * microseconds). A bare number is refused: some would mean CPUs, some percent, the kernel microseconds.
 */
function parseCpuMax(text: string): Value<CpuMax> {
  const refused = { ok: false, reason: 'not a share such as 150%, 150000/100000 or max' } as const;
  if (text === 'max')
    return { ok: true, value: { quotaUs: Number.POSITIVE_INFINITY, periodUs: CPU_PERIOD_US } };
  const percent = /^(\d{1,9}(?:\.\d{1,9})?)%$/.exec(text)?.[1];
  if (percent !== undefined) {
    const quotaUs = Math.floor((Number(percent) * CPU_PERIOD_US) / 100);
    if (quotaUs < CPU_QUOTA_MIN_US) return { ok: false, reason: 'under 1%' };
    if (Number(percent) > CPU_QUOTA_MAX_PERCENT)
      return { ok: false, reason: `over ${CPU_QUOTA_MAX_PERCENT}%` };
    return { ok: true, value: { quotaUs, periodUs: CPU_PERIOD_US } };
  }
  const [, quota, period] = /^(\d{1,12})\/(\d{1,12})$/.exec(text) ?? [];
  const quotaUs = Number(quota);
  const periodUs = Number(period);
  if (!(quotaUs >= CPU_QUOTA_MIN_US)) return refused;
  if (!(periodUs >= CPU_PERIOD_MIN_US && periodUs <= CPU_PERIOD_MAX_US)) {
    return { ok: false, reason: `period not from ${CPU_PERIOD_MIN_US} to ${CPU_PERIOD_MAX_US}` };
  }
  if ((quotaUs / periodUs) * 100 > CPU_QUOTA_MAX_PERCENT) return refused;
  return { ok: true, value: { quotaUs, periodUs } };
}

function parseClass(text: string): Value<CallClass> {
  const found = CALL_CLASSES.find((name) => name === text);
  if (found === undefined) return { ok: false, reason: `not one of ${CALL_CLASSES.join(', ')}` };
  return { ok: true, value: found };
}
