// SPDX-License-Identifier: Apache-2.0
import type { ProxyMonitor } from '../control/types.ts';
import { SUBSCRIPTION_STATUSES, SUBSCRIPTION_WINDOWS } from '../scheduler/subscription-headers.ts';
import { type CallsOfSession, TURN_CLASSES, type TurnClass } from '../scheduler/types.ts';
import { fields, flag, list, number, oneOf, orNull, type Shape, text } from '../shape.ts';

/*
 * What the two halves tell each other of sessions. The daemon believes nothing that the core says: the core reads
 * what strangers send. What does not look as it should is dropped.
 */

/** The answer to settings that are in force; anything else says why they are not. */
export const CONFIGURED = 'configured';

/** Sessions by their key; null: it has ended. */
export type CallsMessage = readonly (readonly [session: string, calls: CallsOfSession | null])[];

/** Ids of cgroups. */
export type FrozenMessage = readonly number[];

export interface ClassMessage {
  readonly session: string;
  readonly class: TurnClass;
}

/** Every kind of event that the core has for `agentrm events`. */
export const CORE_EVENTS = ['turn-held', 'turn-released', 'run-abandoned'] as const;

/** Flat: its fields are those of the event. */
export interface CoreEvent {
  readonly kind: (typeof CORE_EVENTS)[number];
  readonly session: string;
  readonly [detail: string]: string | number | boolean | null;
}

/** Longer ones are not the core's: its answers hold a limited number of sessions and upstreams. */
const MAX_ANSWER_CHARS = 1024 * 1024;
/** A uid and at most 128 characters. */
const key = text(160);
const word = text(512);
const turnClass = oneOf(...TURN_CLASSES);

const classMessage: Shape<ClassMessage> = fields({ session: key, class: turnClass });
const coreEvent = fields({ kind: oneOf(...CORE_EVENTS), session: key });

const lanes = fields({ held: number, limit: number, fixed: flag });
const level = fields({ level: turnClass, queued: number, running: number, oldestWaitMs: number });
const bucket = fields({
  resource: oneOf('requests', 'inputTokens', 'outputTokens'),
  limitPerMin: orNull(number),
  available: orNull(number),
  reserved: number,
});
const subscriptionStatus = oneOf(...SUBSCRIPTION_STATUSES);
const subscription = fields({
  status: subscriptionStatus,
  claim: orNull(word),
  fallback: flag,
  resetMs: orNull(number),
  windows: list(
    fields({
      window: oneOf(...SUBSCRIPTION_WINDOWS),
      status: orNull(subscriptionStatus),
      used: orNull(number),
      resetMs: orNull(number),
    }),
  ),
});
const upstream = fields({
  provider: word,
  credential: word,
  modelClass: word,
  lanes,
  levels: list(level),
  buckets: list(bucket),
  pausedMs: orNull(number),
  breaker: oneOf('closed', 'open', 'half-open'),
  subscription: orNull(subscription),
});
const session = fields({
  id: word,
  uid: orNull(number),
  class: turnClass,
  lanes: number,
  queuedTurns: number,
  grantedTurns: number,
  finishedTurns: number,
  usedTokens: number,
  holdsPlace: flag,
  terminated: flag,
  ageMs: number,
  sinceTurnMs: number,
  runs: list(fields({ agent: orNull(word), ageMs: number })),
});
const proxyMonitor: Shape<ProxyMonitor> = fields({
  queued: number,
  running: number,
  delayed: number,
  gated: number,
  held: number,
  pressure: fields({ memory: number, poolShort: flag }),
  agents: fields({ limit: orNull(number), running: number, waiting: number }),
  upstreams: list(upstream),
  sessions: list(session),
  omitted: number,
});

/** @returns undefined for what is none. */
export function parseClass(json: string): ClassMessage | undefined {
  return parse(classMessage, json);
}

/** @returns undefined for what is none. */
export function parseEvent(json: string): CoreEvent | undefined {
  return parse((value) => {
    const known = coreEvent(value);
    if (known === undefined) return undefined;
    const details = Object.entries(value as object).filter(([name]) => !Object.hasOwn(known, name));
    if (!details.every(([, detail]) => isDetail(detail))) return undefined;
    // As own fields, whatever their names are.
    return Object.fromEntries([...Object.entries(known), ...details]) as CoreEvent;
  }, json);
}

/** @returns null for what is none. */
export function parseMonitor(json: string): ProxyMonitor | null {
  return (json.length <= MAX_ANSWER_CHARS ? parse(proxyMonitor, json) : undefined) ?? null;
}

function isDetail(value: unknown): boolean {
  return value === null || (word(value) ?? number(value) ?? flag(value)) !== undefined;
}

function parse<T>(shape: Shape<T>, json: string): T | undefined {
  try {
    return shape(JSON.parse(json));
  } catch {
    return undefined;
  }
}
