// SPDX-License-Identifier: Apache-2.0
import * as z from 'zod';
import type { ProxyMonitor } from '../control/types.ts';
import { SUBSCRIPTION_STATUSES, SUBSCRIPTION_WINDOWS } from '../scheduler/subscription-headers.ts';
import { type CallsOfSession, TURN_CLASSES, type TurnClass } from '../scheduler/types.ts';

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
/** A key: a uid and at most 128 characters. */
const key = z.string().max(160);
const text = z.string().max(512);
const turnClass = z.enum(TURN_CLASSES);

const classMessage = z.object({ session: key, class: turnClass });
const coreEvent = z
  .object({ kind: z.enum(CORE_EVENTS), session: key })
  .catchall(z.union([text, z.number(), z.boolean(), z.null()]));

const pressure = z.object({ memory: z.number(), poolShort: z.boolean() });
const upstream = z.object({
  provider: text,
  credential: text,
  modelClass: text,
  lanes: z.object({ held: z.number(), limit: z.number(), fixed: z.boolean() }),
  levels: z.array(
    z.object({ level: turnClass, queued: z.number(), running: z.number(), oldestWaitMs: z.number() }),
  ),
  buckets: z.array(
    z.object({
      resource: z.enum(['requests', 'inputTokens', 'outputTokens']),
      limitPerMin: z.number().nullable(),
      available: z.number().nullable(),
      reserved: z.number(),
    }),
  ),
  pausedMs: z.number().nullable(),
  breaker: z.enum(['closed', 'open', 'half-open']),
  subscription: z
    .object({
      status: z.enum(SUBSCRIPTION_STATUSES),
      claim: text.nullable(),
      fallback: z.boolean(),
      resetMs: z.number().nullable(),
      windows: z.array(
        z.object({
          window: z.enum(SUBSCRIPTION_WINDOWS),
          status: z.enum(SUBSCRIPTION_STATUSES).nullable(),
          used: z.number().nullable(),
          resetMs: z.number().nullable(),
        }),
      ),
    })
    .nullable(),
});
const session = z.object({
  id: text,
  uid: z.number().nullable(),
  class: turnClass,
  lanes: z.number(),
  queuedTurns: z.number(),
  grantedTurns: z.number(),
  finishedTurns: z.number(),
  usedTokens: z.number(),
  holdsPlace: z.boolean(),
  terminated: z.boolean(),
  ageMs: z.number(),
  sinceTurnMs: z.number(),
  runs: z.array(z.object({ agent: text.nullable(), ageMs: z.number() })),
});
const proxyMonitor: z.ZodType<ProxyMonitor> = z.object({
  queued: z.number(),
  running: z.number(),
  delayed: z.number(),
  gated: z.number(),
  held: z.number(),
  pressure,
  agents: z.object({ limit: z.number().nullable(), running: z.number(), waiting: z.number() }),
  upstreams: z.array(upstream),
  sessions: z.array(session),
  omitted: z.number(),
});

/** @returns undefined for what is none. */
export function parseClass(json: string): ClassMessage | undefined {
  return parse(classMessage, json);
}

/** @returns undefined for what is none. */
export function parseEvent(json: string): CoreEvent | undefined {
  return parse(coreEvent, json);
}

/** @returns null for what is none. */
export function parseMonitor(json: string): ProxyMonitor | null {
  return (json.length <= MAX_ANSWER_CHARS ? parse(proxyMonitor, json) : undefined) ?? null;
}

function parse<T>(schema: z.ZodType<T>, json: string): T | undefined {
  try {
    return schema.safeParse(JSON.parse(json)).data;
  } catch {
    return undefined;
  }
}
