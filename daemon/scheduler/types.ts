// SPDX-License-Identifier: Apache-2.0
import type { Counters } from './counters.ts';
import type { HungEvidence } from './reaper.ts';
import type { Refusal } from './refusals.ts';
import type { SavedState } from './saved-state.ts';
import type { SchedulerSettings } from './settings.ts';
import type { AgentSnapshot, SchedulerSnapshot } from './snapshot.ts';

/*
 * What the proxy (or the simulator) and the scheduler say to each other. The scheduler does no I/O and knows
 * nothing of HTTP: it is told of a turn, grants it a lease of a lane, is told of the response's progress, and
 * says what to do when the turn fails or hangs.
 *
 *   submit -> queued -> onLease(lease) -> lease.headers/progress/usage -> lease.end(outcome) -> verdict
 *                          ^                  | silent for too long                           | retry
 *                          |                  v                                               |
 *                          +---- retry -- onHung(evidence, verdict)                           |
 *                          +------------------------------------------------------------------+
 *
 * All times are milliseconds of the injected clock.
 */

/** Best first. A turn starts at the level of its class, and never rises above it. */
export const TURN_CLASSES = ['interactive', 'subagent', 'background'] as const;
export type TurnClass = (typeof TURN_CLASSES)[number];

/** One request to a model API, as far as scheduling is concerned. */
export interface Turn {
  /** Unique among the turns that live. */
  readonly id: string;
  /** The conversation, from the request's own identification, never from the connection. */
  readonly session: string;
  /** The sub-agent within the session, if it says so. It has runs of its own; fairness is between sessions. */
  readonly agent?: string;
  /** Who answers for the turn's life (a connection, a process): see {@link TurnScheduler.endOwner}. */
  readonly owner?: string;
  /** Where on this host its client runs, in the node agent's own numbers: see {@link TurnScheduler.setFrozen}. */
  readonly place?: number;
  readonly provider: string;
  /** Salted hash of the caller's credential; the credential itself never comes here. */
  readonly credential: string;
  /** The models that share one rate limit, such as `claude-sonnet-4`. */
  readonly modelClass: string;
  readonly class: TurnClass;
  /** The newest user message holds human text, not only tool results: a new run begins. */
  readonly runStart: boolean;
  /** Estimate of the input tokens that count towards the rate limit. */
  readonly inputTokens: number;
  /** Whether the client asked for a stream. */
  readonly streaming: boolean;
  /** Whether sending the request twice is harmless: false with `store` or `background`. */
  readonly retryable: boolean;
  /** Makes the hash of the request's body: the same request sent again is known by it, within one credential. */
  readonly bodyHash: () => string;
  /** Within which time it should have its lane, if it says so; only the deadline policy looks at it. */
  readonly deadlineMs?: number;
  /** How long the client itself waits for the whole response (`x-stainless-timeout`), if it says so. */
  readonly clientTimeoutMs?: number;
}

/**
 * What the owner of a turn is told, in order. With a free lane `onLease` is called within `submit` already.
 * What listeners throw is thrown at whoever made the scheduler move: they must not throw.
 */
export interface TurnListener {
  /** The turn has a lane: send it. Called again after each retry that was granted. */
  readonly onLease: (lease: Lease) => void;
  /** The turn has no place any more, and never had or no longer has a lane. Called at most once, as the last. */
  readonly onRefused: (refusal: Refusal) => void;
  /**
   * The turn hung. Unless the verdict is `watch` (dry run), the lease is over and its lane already given away:
   * abort the upstream request; then either another lease comes (`retry`) or the client is told (`fail`).
   */
  readonly onHung: (evidence: HungEvidence, verdict: Verdict) => void;
}

/** A turn that was submitted. */
export interface Ticket {
  readonly turn: Turn;
  /** The client has gone: leaves the queue (`onRefused`), or ends the lease as aborted. No effect once it is over. */
  readonly cancel: () => void;
}

/** Why no bytes are expected of a turn although its upstream may be healthy. */
export type PauseReason =
  | 'back-pressure' // the client does not read
  | 'frozen'; // the client is itself inside a frozen call

/** One attempt's right to use a lane. Every method is without effect once the lease is over. */
export interface Lease {
  readonly turn: Turn;
  /** 0 for the first attempt, then counts retries. */
  readonly attempt: number;
  /** Time in the queue before this attempt. */
  readonly waitedMs: number;
  /** Whether the lane is still held. */
  readonly live: boolean;
  /** The response's head has come. Learns limits from it, whatever its status. Counts as progress. */
  readonly headers: (headers: HeaderReader, status: number) => void;
  /** Bytes have come: `ping` if they hold nothing but keep-alives. Cheap: call it for each chunk. */
  readonly progress: (kind: 'content' | 'ping') => void;
  /** Something other than keep-alives has gone to the client: a retry would be seen from now on. */
  readonly committed: () => void;
  /** The response is held up on our side of the wire; the reaper waits meanwhile. Reasons add up. */
  readonly pause: (reason: PauseReason) => void;
  readonly resume: (reason: PauseReason) => void;
  /**
   * Tokens as far as the response has told; the latest values count. While it streams, an estimate of the output so
   * far (its bytes over 4) now and then keeps limits from being passed by long answers; the last values are settled.
   */
  readonly usage: (usage: Usage) => void;
  /** Gives the lane back and settles the reservation. The verdict says what becomes of the turn. */
  readonly end: (outcome: Outcome) => Verdict;
}

/** A header's value by its lower-case name, or null or undefined. A Headers object's `get` will do. */
export type HeaderReader = (name: string) => string | null | undefined;

/** Absent: not told. */
export interface Usage {
  /** Input that counts towards the rate limit: without what was read from a cache. */
  readonly inputTokens?: number;
  readonly outputTokens?: number;
}

export type Outcome =
  /**
   * The response is complete, whatever it says, and as the client wanted it; also 4xx of the client's own.
   * `endsRun`: the agent's answer to its user, with no tool to be called; absent: that cannot be told.
   */
  | { readonly kind: 'ok'; readonly endsRun?: boolean }
  | UpstreamError
  /** The client has gone. */
  | { readonly kind: 'aborted' };

export interface UpstreamError {
  readonly kind: 'error';
  /** Null: the connection failed, or the stream was cut. An error event in a stream has the status it stands for. */
  readonly status: number | null;
  /** Of the error response, for Retry-After in all its forms and `x-should-retry`. Absent: none. */
  readonly headers?: HeaderReader;
  /** The account's quota or credit is used up: waiting for seconds does not help. */
  readonly quotaExhausted?: boolean;
}

/** What becomes of a turn whose attempt is over. */
export type Verdict =
  | { readonly action: 'done' }
  /** It is queued again by itself after the delay: another lease or a refusal follows. */
  | { readonly action: 'retry'; readonly attempt: number; readonly delayMs: number; readonly reason: string }
  /** Tell the client: pass on the upstream's own error, or make one. */
  | {
      readonly action: 'fail';
      readonly reason: string;
      /** For `x-should-retry`: false once the retries are used up, null to leave the upstream's own. */
      readonly shouldRetry: boolean | null;
      /** For Retry-After; null: none. */
      readonly retryAfterMs: number | null;
    }
  /** Dry run: it would have been ended. The lease lives on. */
  | { readonly action: 'watch' };

/** What the node agent knows of one session's tool calls, from the kernel. */
export interface CallsOfSession {
  /** Those that have not ended, frozen ones included. */
  readonly live: number;
  readonly frozen: number;
}

/** How the host stands, from the node agent. Background turns are slowed by it. */
export interface HostPressure {
  /** 0 (none) to 1 (tasks wait for memory all the time). */
  readonly memory: number;
  /** Calls are frozen or wait because the memory pool is short. */
  readonly poolShort: boolean;
}

/** The scheduler, as the proxy and the simulator use it. */
export interface TurnScheduler {
  readonly submit: (turn: Turn, listener: TurnListener) => Ticket;
  readonly setHostPressure: (pressure: HostPressure) => void;
  /** What the node agent knows of a session's tool calls; null: nothing any more. */
  readonly setCalls: (session: string, calls: CallsOfSession | null) => void;
  /**
   * Places that are frozen, all of them. A client there cannot read, which says nothing of its upstream: no silence
   * counts meanwhile.
   */
  readonly setFrozen: (places: ReadonlySet<number>) => void;
  /**
   * Other settings. For turns to come and those that wait; what has a lane keeps the patience that it was granted
   * with. Levels, tables and the order of the queue stay as they were.
   */
  readonly configure: (settings: SchedulerSettings) => void;
  /** Ends all turns of an owner that has died: leases as aborted, queued ones refused. @returns how many. */
  readonly endOwner: (owner: string) => number;
  readonly snapshot: (sees?: (session: string) => boolean) => SchedulerSnapshot;
  readonly agents: () => Iterable<AgentSnapshot>;
  readonly counters: () => Counters;
  /** What should outlive a restart. JSON. */
  readonly save: () => SavedState;
  /** Refuses what waits, and ends all timers. Leases that live may still be ended. */
  readonly close: () => void;
}
