// SPDX-License-Identifier: Apache-2.0
import { CALL_CLASSES, type CallClass, type CpuMax, IDLE_WEIGHT, type Intent } from '../toolcall/intent.ts';
import { formatBytes, formatMs } from '../units.ts';
import { floorToPage } from './lines.ts';

/** All that a call declares in the end, nothing left open. `Infinity` is the kernel's `max`. */
export interface Limits {
  readonly memoryHighBytes: number;
  /** Nobody asked for this memory.high: it follows from the size of the host, or from earlier runs. */
  readonly highIsGuess: boolean;
  readonly memoryMaxBytes: number;
  readonly swapMaxBytes: number;
  /** IDLE_WEIGHT: cpu.idle. */
  readonly cpuWeight: number;
  readonly cpuMax: CpuMax;
  readonly ioWeight: number;
  readonly pidsMax: number;
  readonly timeoutMs: number | null;
  readonly class: CallClass;
}

/** What was said of one call, and goes before what its class says. */
export interface Declared {
  readonly perCall?: Intent | undefined;
  readonly rule?: Intent | undefined;
  readonly agent?: Intent | undefined;
}

/** Who may say something about a call's limits, in the order of precedence. */
export interface LimitLayers extends Declared {
  /** As the session's turns show it. */
  readonly sessionClass?: CallClass | undefined;
  /** What each class says: its weights, and whatever else the administrator wants. */
  readonly classes: Readonly<Record<CallClass, Intent>>;
  readonly defaults: Intent;
  /** memory.high where none of these says anything of it, nor of memory.max. */
  readonly guessedHighBytes?: number | undefined;
  /** What its earlier runs needed: takes the place of the memory.high of `defaults`, and of no other. */
  readonly learnedHighBytes?: number | undefined;
  /** The most that the call's uid may have. Absent field: no ceiling. */
  readonly ceiling: Intent;
}

export interface Resolved {
  readonly limits: Limits;
  /** The memory.max ceiling that applied. */
  readonly ceilingBytes: number;
  /** What was asked for and not given: `memory.max 4 GiB to 2 GiB`. */
  readonly clamped: readonly string[];
}

/**
 * memory.high where only memory.max was given. A tenth below is far enough that the throttle, the freeze
 * line 2 % above it and the charges in flight of about 20 tasks per GiB all fit below memory.max.
 */
const HIGH_OF_MAX = 0.9;

/**
 * A shell cannot start in less (bash alone charges about 1 MiB), and the kernel takes anything below one
 * page for 0, in which nothing runs at all: a bare `memory.max=512` would kill every command.
 */
const LEAST_MEMORY_BYTES = 1024 * 1024;

/** The kernel's defaults (cgroup-v2.rst), where nobody says anything. */
const DEFAULT_WEIGHT = 100;
const UNLIMITED_CPU: CpuMax = { quotaUs: Infinity, periodUs: 100_000 };

const NUMBERS = [
  'memoryHighBytes',
  'memoryMaxBytes',
  'swapMaxBytes',
  'cpuWeight',
  'ioWeight',
  'pidsMax',
  'timeoutMs',
] as const;

/**
 * The limits of a call: per-call intent > rule > agent > class > default, field by field, and then no
 * more than the ceiling. memory.high and memory.max go together, from the first layer that names either:
 * a rule's memory.high means nothing beside another layer's memory.max. Of the two, the one that is
 * absent follows from the other: high is 0.9 × max, max is the ceiling.
 */
export function resolveIntent(layers: LimitLayers): Resolved {
  const clamped: string[] = [];
  const callClass = resolveClass(layers, clamped);
  const order = [layers.perCall, layers.rule, layers.agent, layers.classes[callClass], layers.defaults];
  const { ceiling } = layers;
  const pick = <K extends keyof Intent>(name: K): Intent[K] | undefined =>
    order.find((layer) => layer?.[name] !== undefined)?.[name];
  const clamp = (file: string, asked: number, most: number | undefined, show: (value: number) => string) => {
    if (most === undefined || asked <= most) return asked;
    note(clamped, file, asked, most, show);
    return most;
  };
  const timeoutMs = clamp('timeout', pick('timeoutMs') ?? Infinity, ceiling.timeoutMs, formatMs);
  const limits: Limits = {
    ...resolveMemory(order, layers, clamped),
    swapMaxBytes: clamp('memory.swap.max', pick('swapMaxBytes') ?? 0, ceiling.swapMaxBytes, formatBytes),
    cpuWeight: clamp('cpu.weight', pick('cpuWeight') ?? DEFAULT_WEIGHT, ceiling.cpuWeight, formatWeight),
    cpuMax: resolveCpuMax(pick('cpuMax') ?? UNLIMITED_CPU, ceiling.cpuMax, clamped),
    ioWeight: clamp('io.weight', pick('ioWeight') ?? DEFAULT_WEIGHT, ceiling.ioWeight, String),
    pidsMax: clamp('pids.max', pick('pidsMax') ?? Infinity, ceiling.pidsMax, String),
    timeoutMs: timeoutMs === Infinity ? null : timeoutMs,
    class: callClass,
  };
  return { limits, ceilingBytes: ceiling.memoryMaxBytes ?? Infinity, clamped };
}

/** The lower of two ceilings in every field: an administrator's with what a container has left. */
export function minCeiling(a: Intent, b: Intent): Intent {
  const lower: { -readonly [K in keyof Intent]: Intent[K] } = { ...a, ...b };
  for (const name of NUMBERS) {
    const least = Math.min(a[name] ?? Infinity, b[name] ?? Infinity);
    if (lower[name] !== undefined) lower[name] = least;
  }
  if (a.cpuMax !== undefined && b.cpuMax !== undefined) {
    lower.cpuMax = share(a.cpuMax) < share(b.cpuMax) ? a.cpuMax : b.cpuMax;
  }
  if (a.class !== undefined && b.class !== undefined) lower.class = lowerClass(a.class, b.class);
  return lower;
}

function resolveClass(
  { perCall, rule, agent, sessionClass, defaults, ceiling }: LimitLayers,
  clamped: string[],
) {
  const asked =
    perCall?.class ?? rule?.class ?? agent?.class ?? sessionClass ?? defaults.class ?? CALL_CLASSES[0];
  const given = ceiling.class === undefined ? asked : lowerClass(asked, ceiling.class);
  if (given !== asked) clamped.push(`class ${asked} to ${given}`);
  return given;
}

function lowerClass(a: CallClass, b: CallClass): CallClass {
  return CALL_CLASSES.indexOf(a) > CALL_CLASSES.indexOf(b) ? a : b;
}

function resolveMemory(
  order: readonly (Intent | undefined)[],
  { ceiling, defaults, guessedHighBytes, learnedHighBytes }: LimitLayers,
  clamped: string[],
) {
  const layer = order.find((one) => one?.memoryHighBytes !== undefined || one?.memoryMaxBytes !== undefined);
  const askedMax = layer?.memoryMaxBytes ?? Infinity;
  const memoryMaxBytes = Math.max(LEAST_MEMORY_BYTES, Math.min(askedMax, ceiling.memoryMaxBytes ?? Infinity));
  if (memoryMaxBytes !== askedMax) note(clamped, 'memory.max', askedMax, memoryMaxBytes, formatBytes);

  const derived = memoryMaxBytes === Infinity ? Infinity : floorToPage(memoryMaxBytes * HIGH_OF_MAX);
  // Only the high: what was learned is no reason to kill, nor to let a call have more than it would have.
  const learned = layer === undefined || layer === defaults ? learnedHighBytes : undefined;
  const guessed = learned ?? (layer === undefined ? guessedHighBytes : undefined);
  const askedHigh = guessed ?? layer?.memoryHighBytes ?? derived;
  // A high that no longer fits goes where it would have been with only the max: the throttle stays.
  const fitting = askedHigh > memoryMaxBytes ? derived : askedHigh;
  const raised = Math.max(fitting, Math.min(LEAST_MEMORY_BYTES, derived));
  const memoryHighBytes = Math.min(raised, ceiling.memoryHighBytes ?? Infinity);
  // Only what was asked for can be refused.
  const asked = learned === undefined && layer?.memoryHighBytes !== undefined;
  if (asked && memoryHighBytes !== askedHigh)
    note(clamped, 'memory.high', askedHigh, memoryHighBytes, formatBytes);
  const highIsGuess = guessed !== undefined && memoryHighBytes === raised;
  return { memoryHighBytes, highIsGuess, memoryMaxBytes };
}

function resolveCpuMax(asked: CpuMax, ceiling: CpuMax | undefined, clamped: string[]): CpuMax {
  if (ceiling === undefined || share(asked) <= share(ceiling)) return asked;
  note(clamped, 'cpu.max', share(asked), share(ceiling), (value) => `${Math.round(value * 100)}%`);
  return ceiling;
}

function formatWeight(weight: number): string {
  return weight === IDLE_WEIGHT ? 'idle' : String(weight);
}

function share({ quotaUs, periodUs }: CpuMax): number {
  return quotaUs / periodUs;
}

/** `max` means as much as is allowed: who asks for it is not told that there is a limit. */
function note(
  clamped: string[],
  name: string,
  asked: number,
  given: number,
  show: (value: number) => string,
) {
  if (asked !== Infinity) clamped.push(`${name} ${show(asked)} to ${show(given)}`);
}
