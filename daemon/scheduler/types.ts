// SPDX-License-Identifier: Apache-2.0
import type { SchedulerSettings } from './settings.ts';
import type { SubscriptionStatus, SubscriptionWindowName } from './subscription-headers.ts';

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
  /** Hash of the request's body: the same request sent again is known by it, within one credential. */
  readonly bodyHash: string;
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

export const REFUSAL_CODES = [
  'queue-full', // as many turns wait as may
  'wait-expired', // it waited as long as a client does; its place is kept for the same request
  'session-budget', // the session has used up its tokens
  'quota', // the account's quota is used up, as the upstream said a moment ago
  'subscription', // a limit of the account's subscription is reached, likewise
  'owner-ended', // who submitted it has gone
  'cancelled', // the client has gone
  'closed', // the scheduler is being shut down
] as const;
export type RefusalCode = (typeof REFUSAL_CODES)[number];

export interface Refusal {
  readonly code: RefusalCode;
  /** The status for the client, in the API's own error form: 429, 503 or 529. */
  readonly status: number;
  readonly retryAfterMs: number | null;
  /** For `x-should-retry`. */
  readonly shouldRetry: boolean;
  /** One plain sentence for the client. */
  readonly message: string;
  /** Further headers for the client, names and values in turn: what the upstream itself said of the reason. */
  readonly headers?: readonly string[];
}

/** Which limit of silence was reached. */
export type HungCause =
  | 'first-byte' // nothing at all came
  | 'between-bytes' // it came to a stop
  | 'pings-only' // kept alive without content
  | 'whole-response' // not streaming, and longer than the client waits
  | 'lease-expired'; // the lease's end, whatever came: its owner has lost it

/** Which limit of silence a turn reached, and what was seen of it until then. Times are without pauses, but for `heldMs`. */
export interface Silence {
  readonly cause: HungCause;
  readonly limitMs: number;
  /** Since the last progress that counts for the cause. */
  readonly silentMs: number;
  /** Since the lease was granted. */
  readonly heldMs: number;
  readonly pausedMs: number;
  /** Since headers, content and a ping came; null: none came. */
  readonly sinceHeadersMs: number | null;
  readonly sinceContentMs: number | null;
  readonly sincePingMs: number | null;
  readonly contentEvents: number;
  readonly pings: number;
}

/** What was known when a turn was found hung; all of it goes into the log. */
export interface HungEvidence extends Silence {
  readonly turn: string;
  readonly session: string;
  readonly attempt: number;
  readonly committed: boolean;
  readonly dryRun: boolean;
}

/** What the node agent knows of one session's tool calls, from the kernel. */
export interface CallsOfSession {
  /** Those that have not ended, frozen ones included. */
  readonly live: number;
  readonly frozen: number;
}

/** What was known when a run was found abandoned; all of it goes into the log. */
export interface AbandonedEvidence {
  readonly session: string;
  readonly class: TurnClass;
  /** Open runs that ended with it: the user's, and subagents'. */
  readonly runs: number;
  readonly limitMs: number;
  /** Since the session's last turn came or ended. */
  readonly sinceTurnMs: number;
  /** From the kernel; null: the node agent does not know the session, or does not run. */
  readonly calls: { readonly live: 0; readonly noneForMs: number } | null;
  /** It was one of a limited number of running agents: another may run now. */
  readonly holdsPlace: boolean;
  readonly dryRun: boolean;
}

/** A turn that would have had a lane but for the host's memory. */
export interface HeldEvidence {
  readonly turn: string;
  readonly session: string;
  readonly class: TurnClass;
  readonly host: HostPressure;
}

/** What others than a turn's own proxy want to hear of. They must not throw. */
export interface SchedulerEvents {
  /** A session has shown its class, or another one. */
  readonly onClass?: (session: string, turnClass: TurnClass) => void;
  readonly onAbandoned?: (evidence: AbandonedEvidence) => void;
  readonly onHeld?: (evidence: HeldEvidence) => void;
  /** It has its lane, or has gone. */
  readonly onHeldEnd?: (evidence: HeldEvidence, heldMs: number) => void;
}

/** How the host stands, from the node agent. Background turns are slowed by it. */
export interface HostPressure {
  /** 0 (none) to 1 (tasks wait for memory all the time). */
  readonly memory: number;
  /** Calls are frozen or wait because the memory pool is short. */
  readonly poolShort: boolean;
}

/** Time as the scheduler sees it; the simulator has its own. */
export interface Clock {
  /** Milliseconds, never running backwards. */
  readonly now: () => number;
  /** Milliseconds since the epoch, for times of day in headers. */
  readonly wallNow: () => number;
  /** Calls back once, after at least `delayMs`. */
  readonly setTimer: (delayMs: number, callback: () => void) => Timer;
}

export interface Timer {
  /** Without effect once it has fired. */
  readonly cancel: () => void;
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

/** A moment's picture, for status, metrics and `agentrm top`. */
export interface SchedulerSnapshot {
  readonly atMs: number;
  readonly queued: number;
  readonly running: number;
  /** Waiting out the delay before a retry; they hold neither a lane nor a place among the queued. */
  readonly delayed: number;
  /** Of the queued, those whose agent waits for one of the running agents to end. */
  readonly gated: number;
  /** Of the queued, those that would have a lane but for the host's memory. */
  readonly held: number;
  readonly host: HostPressure;
  readonly agents: AgentCounts;
  readonly upstreams: readonly UpstreamSnapshot[];
}

export interface AgentCounts {
  /** Sessions that may run at a time; null: any number. */
  readonly limit: number | null;
  /** That hold a place; 0 without a limit. */
  readonly running: number;
  readonly waiting: number;
}

/** One session, as its turns show it. */
export interface AgentSnapshot {
  readonly session: string;
  readonly class: TurnClass;
  /** Turns that hold a lane. */
  readonly running: number;
  /** Turns that wait for one, delays before retries included. */
  readonly waiting: number;
  /** Leases so far. */
  readonly granted: number;
  /** Turns that are over, in whatever way. */
  readonly finished: number;
  /** Input and output, as far as was told. */
  readonly usedTokens: number;
  readonly calls: CallsOfSession | null;
  readonly holdsPlace: boolean;
  /** Nobody has gone on with it for the configured time. */
  readonly terminated: boolean;
  readonly ageMs: number;
  /** Since its last turn came or ended. */
  readonly sinceTurnMs: number;
  /** That no answer has ended. */
  readonly runs: readonly RunSnapshot[];
}

export interface RunSnapshot {
  /** Null: the user's own. */
  readonly agent: string | null;
  readonly ageMs: number;
}

/** One (provider, credential, model class): what shares lanes and limits. */
export interface UpstreamSnapshot {
  readonly provider: string;
  readonly credential: string;
  readonly modelClass: string;
  readonly lanes: {
    readonly held: number;
    readonly limit: number;
    /** Whether the limit is configured and not adaptive. */
    readonly fixed: boolean;
  };
  readonly levels: readonly LevelSnapshot[];
  readonly buckets: readonly BucketSnapshot[];
  /** Until when the upstream asked for silence, if it did. */
  readonly pausedUntilMs: number | null;
  readonly breaker: 'closed' | 'open' | 'half-open';
  /** The same for every model class of the account; null: it has none, as far as its answers have told. */
  readonly subscription: SubscriptionSnapshot | null;
  readonly expectedOutputTokens: number;
  readonly turns: readonly TurnSnapshot[];
}

/** What the newest answer said of the account's subscription. Times are from now, 0 once they have passed. */
export interface SubscriptionSnapshot {
  readonly status: SubscriptionStatus;
  readonly claim: string | null;
  readonly fallback: boolean;
  readonly resetMs: number | null;
  readonly windows: readonly {
    readonly window: SubscriptionWindowName;
    readonly status: SubscriptionStatus | null;
    readonly used: number | null;
    readonly resetMs: number | null;
  }[];
}

export interface LevelSnapshot {
  readonly level: TurnClass;
  readonly queued: number;
  readonly running: number;
  readonly oldestWaitMs: number;
}

export const RESOURCES = ['requests', 'inputTokens', 'outputTokens'] as const;
export type Resource = (typeof RESOURCES)[number];

export interface BucketSnapshot {
  readonly resource: Resource;
  /** A minute; null: unknown, so unlimited. */
  readonly limitPerMin: number | null;
  /** Less reservations; below 0 after a turn that used more than was reserved. */
  readonly available: number | null;
  readonly reserved: number;
}

export interface TurnSnapshot {
  readonly turn: string;
  readonly session: string;
  readonly agent: string | null;
  readonly class: TurnClass;
  readonly level: TurnClass;
  /** `gated`: its agent waits for one of the running agents to end. */
  readonly state: 'queued' | 'running' | 'delayed' | 'gated';
  readonly attempt: number;
  /** In this state. */
  readonly sinceMs: number;
}

/** All count up from the start of the process. */
export interface Counters {
  readonly submitted: number;
  readonly dispatched: number;
  readonly completed: number;
  readonly failed: number;
  readonly aborted: number;
  readonly retried: number;
  /** Hung turns that were ended. */
  readonly reaped: number;
  /** Hung turns of a dry run. */
  readonly wouldReap: number;
  /** Of turns that hung or failed and were completed by a retry. */
  readonly recovered: number;
  readonly refused: Readonly<Record<RefusalCode, number>>;
  /** Turns that were served out of their turn because they waited too long. */
  readonly aged: number;
  readonly demoted: number;
  /** 429 and 529 answers. */
  readonly rateLimited: number;
  readonly overloaded: number;
  /** Values of rate headers that cannot be: -1, text. */
  readonly badHeaders: number;
  /** Sessions, runs or places forgotten because the tables were full. */
  readonly evicted: number;
  /** Turns that the queue found room for because the same request had waited before. */
  readonly placesKept: number;
  /** Sessions whose runs were ended because nobody went on with them. */
  readonly abandoned: number;
  /** The same of a dry run. */
  readonly wouldAbandon: number;
  /** Turns that would have had a lane but for the host's memory. */
  readonly held: number;
}

/** What outlives a restart; see {@link TurnScheduler.save}. Times are of the day: the clock starts anew. */
export interface SavedState {
  readonly version: 1;
  readonly savedAtWallMs: number;
  readonly budgets: readonly { readonly session: string; readonly usedTokens: number }[];
  /** Of turns that waited or whose place was kept. */
  readonly places: readonly {
    readonly credential: string;
    readonly bodyHash: string;
    readonly sinceWallMs: number;
    readonly attempts: number;
  }[];
  /** Open runs, newest last; absent in what older cores saved. */
  readonly runs?: readonly SavedRun[];
  readonly upstreams: readonly {
    readonly provider: string;
    readonly credential: string;
    readonly modelClass: string;
    readonly laneLimit: number;
    readonly expectedOutputTokens: number;
    readonly pausedUntilWallMs: number | null;
    readonly buckets: readonly {
      readonly resource: Resource;
      readonly limitPerMin: number | null;
      readonly available: number | null;
    }[];
  }[];
}

export interface SavedRun {
  readonly session: string;
  readonly agent: string | null;
  readonly class: TurnClass;
  readonly modelClass: string;
  readonly level: TurnClass;
  /** Service at this level. */
  readonly usedMs: number;
  readonly startedWallMs: number;
  readonly lastTurnWallMs: number;
  readonly holdsPlace: boolean;
}
