// SPDX-License-Identifier: Apache-2.0

/*
 * What the daemon answers on its control socket, and the command line prints with --json. Both sides
 * import these; a field may be added, never renamed. Times of day are ISO 8601 in UTC with
 * milliseconds; a size or a limit that is `null` means "no limit".
 *
 * GET /v1/status                                 Status
 * GET /v1/sessions                               { sessions: SessionRecord[] }
 * GET /v1/calls?limit=N&session=ID&live=1        lines of CallRecord, oldest first; then LiveCall if asked for
 * GET /v1/events?follow=1                        lines of Event: what is remembered, then, if asked for, what comes
 * GET /v1/monitor                                Monitor
 * GET /v1/doctor                                 DoctorReport
 * GET /v1/advice                                 lines of Advice
 * GET /metrics, /healthz, /readyz                text
 *
 * If the database does not answer in time, /v1/calls lacks what only the database has, and says why in its trailer,
 * `agentrm-incomplete`. "Lines" are application/x-ndjson. Any other status than 200 has an ErrorBody. A caller sees
 * its own uid's sessions, calls and events; root and the group agentrm see all.
 */

/** The trailer of a list that lacks something: why. */
export const INCOMPLETE = 'agentrm-incomplete';

/** As many calls as can be kept, and asked for. */
export const MOST_CALLS = 10_000_000;

/** Every way in which a call can end. */
export const outcomes = ['ok', 'killed', 'oom', 'timeout', 'lost'] as const;
export type Outcome = (typeof outcomes)[number];

/**
 * Every state of a call that has not ended: waiting for admission; running; held back by the kernel at
 * memory.high; frozen; its shell has ended but processes that it left behind live on.
 */
export const callStates = ['waiting', 'running', 'throttled', 'frozen', 'lingering'] as const;
export type CallState = (typeof callStates)[number];

/** What was done to a call, and when. */
export interface Decision {
  /** Milliseconds since the call started. */
  readonly atMs: number;
  readonly action: 'clamp' | 'freeze' | 'lend' | 'wait' | 'thaw' | 'give-back' | 'kill' | 'escaped';
  /** One lower-case clause that an agent or a person can read. */
  readonly reason: string;
  /** Usage of the call at that moment. */
  readonly usageBytes?: number;
  /** For lend and give-back: memory.high after it. */
  readonly highBytes?: number;
}

export interface CallMemory {
  readonly highBytes: number | null;
  readonly maxBytes: number | null;
  readonly peakBytes: number;
  /**
   * Time that tasks of the call slept over memory.high, summed over its tasks; without BPF: in which one of them waited
   * for memory.
   */
  readonly throttledMs: number;
  readonly frozenMs: number;
  /** How often a charge went over memory.high. */
  readonly highEvents: number;
  readonly oomKills: number;
}

export interface CallCpu {
  readonly userMs: number;
  readonly systemMs: number;
}

/** A finished call. */
export interface CallRecord {
  readonly id: string;
  readonly session: string;
  readonly uid: number;
  readonly agent: string | null;
  /** As much of the command as the configuration allows to be kept. */
  readonly command: string;
  /** Null if it died by a signal, or if nobody saw its end. */
  readonly exitCode: number | null;
  /** Name of the signal that it died by (`SIGKILL`). */
  readonly signal: string | null;
  readonly startedAt: string;
  readonly durationMs: number;
  readonly outcome: Outcome;
  readonly memory: CallMemory;
  readonly cpu: CallCpu;
  readonly decisions: readonly Decision[];
  /** What the agent was told; null if there was nothing worth telling. */
  readonly report: CallReport | null;
}

/** The line that an agent reads after a call, and what it says in figures. */
export interface CallReport {
  readonly line: string;
  /** An intent with which the command would probably have got through, if that would have helped. */
  readonly advice: string | null;
  /**
   * Why AgentRM killed it, if it did: `memory-max`, `host-memory`, `timeout`, `session-end`,
   * `wrapper-lost`, `leftover` or `operator`.
   */
  readonly killCode: string | null;
  readonly admissionWaitMs: number;
  /** The most that memory.high stood above the declared one. */
  readonly lentBytes: number;
  readonly pidsMaxHits: number;
  /** Processes that were still there when the shell had ended, and whether they may stay. */
  readonly leftovers: number;
  readonly leftoversKept: boolean;
}

/** A call that has not ended; told from a CallRecord by its `state`. */
export interface LiveCall {
  readonly id: string;
  readonly session: string;
  readonly uid: number;
  readonly agent: string | null;
  readonly command: string;
  readonly startedAt: string;
  readonly state: CallState;
  readonly memory: Omit<CallMemory, 'oomKills'> & { readonly usedBytes: number };
  readonly decisions: readonly Decision[];
}

/** Of several runs; with `atLeast` so many of them were cut short up there that it may be more. */
export interface PeakQuantile {
  readonly bytes: number;
  readonly atLeast: boolean;
}

/** What runs of a command in a repository have needed, and what to ask for. */
export interface Advice {
  readonly uid: number;
  /** The top of its work tree; null: in none. */
  readonly repository: string | null;
  /** What the runs have in common, as much of it as the configuration allows to be kept. */
  readonly command: string;
  /** Runs behind the figures: the newest ones, … */
  readonly runs: number;
  /** … and how many of those did not come to their own end: they count as "at least". */
  readonly cutShort: number;
  readonly lastRunAt: string;
  readonly p50: PeakQuantile;
  readonly p95: PeakQuantile;
  readonly max: PeakQuantile;
  /** In the words of AGENTRM_INTENT. */
  readonly intent: string;
  /** The same for `rules` of the configuration. */
  readonly rule: { readonly command: string; readonly intent: string };
}

/**
 * How a session stands. `created`: nothing of it has run yet, its first turn waits. `ready`: turns wait for a lane.
 * `running`: a turn has a lane, or a tool call works. `waiting`: for a frozen or waiting call, for its agent, or for
 * its user. `terminated`: nobody has gone on with it for the configured time.
 */
export const sessionStates = ['created', 'ready', 'running', 'waiting', 'terminated'] as const;
export type SessionState = (typeof sessionStates)[number];

/** What a turn or call is to somebody: who waits for it. */
export type SessionClass = 'interactive' | 'subagent' | 'background';

/** A session that lives, of its tool calls or its turns or both. */
export interface SessionRecord {
  /** As the agent names it. */
  readonly id: string;
  /** Null: of turns from a peer that the kernel does not know, such as in a container. */
  readonly uid: number | null;
  readonly agent: string | null;
  readonly state: SessionState;
  /** As its turns show it; null: it has none. */
  readonly class: SessionClass | null;
  /** Null: it has no tool calls. */
  readonly cgroup: string | null;
  readonly startedAt: string;
  readonly lastActiveAt: string;
  readonly liveCalls: number;
  /** Of the live ones. */
  readonly frozenCalls: number;
  readonly finishedCalls: number;
  readonly usedBytes: number;
  /** Turns that hold a lane. */
  readonly lanes: number;
  /** Turns that wait for one, delays before retries included. */
  readonly queuedTurns: number;
  readonly finishedTurns: number;
  /** Input and output of its turns. */
  readonly usedTokens: number;
  /** Runs that no answer has ended. */
  readonly openRuns: number;
}

/** One moment of both halves: GET /v1/monitor. */
export interface Monitor {
  readonly time: string;
  readonly host: {
    readonly totalBytes: number;
    readonly availableBytes: number;
    /** Per cent of the last 10 s in which some task waited for it; null where PSI is off. */
    readonly pressure: Readonly<Record<'cpu' | 'memory' | 'io', number | null>>;
  };
  readonly pool: Status['pool'];
  /** Of everybody, by state. */
  readonly calls: Readonly<Record<CallState, number>>;
  readonly sessions: readonly SessionRecord[];
  readonly liveCalls: readonly LiveCall[];
  /** Null: there is no proxy, or it does not answer. */
  readonly proxy: ProxyMonitor | null;
}

/** The turns' half. Numbers of turns are of everybody; upstreams and sessions are the caller's. */
export interface ProxyMonitor {
  readonly queued: number;
  readonly running: number;
  /** Waiting out the delay before a retry. */
  readonly delayed: number;
  /** Of the queued, those whose session waits for one of the running agents to end. */
  readonly gated: number;
  /** Of the queued, those that would have a lane but for the host's memory. */
  readonly held: number;
  /** As the scheduler was told last. */
  readonly pressure: { readonly memory: number; readonly poolShort: boolean };
  readonly agents: { readonly limit: number | null; readonly running: number; readonly waiting: number };
  readonly upstreams: readonly ProxyUpstream[];
  /** Least recently active first. */
  readonly sessions: readonly ProxySession[];
  /** Sessions that were left out. */
  readonly omitted: number;
}

/** What shares lanes and rate limits. */
export interface ProxyUpstream {
  readonly provider: string;
  /** A salted hash. */
  readonly credential: string;
  readonly modelClass: string;
  readonly lanes: { readonly held: number; readonly limit: number; readonly fixed: boolean };
  readonly levels: readonly {
    readonly level: SessionClass;
    readonly queued: number;
    readonly running: number;
    readonly oldestWaitMs: number;
  }[];
  readonly buckets: readonly {
    readonly resource: 'requests' | 'inputTokens' | 'outputTokens';
    readonly limitPerMin: number | null;
    readonly available: number | null;
    readonly reserved: number;
  }[];
  /** For how long the upstream asked for silence; null: it did not. */
  readonly pausedMs: number | null;
  readonly breaker: 'closed' | 'open' | 'half-open';
  /** The account's, as its newest answer told; null: it has none. Times are from now. */
  readonly subscription: {
    readonly status: 'allowed' | 'allowed_warning' | 'rejected';
    /** The limit that decided, in the API's own word. */
    readonly claim: string | null;
    /** Another model would be served. */
    readonly fallback: boolean;
    readonly resetMs: number | null;
    readonly windows: readonly {
      readonly window: '5h' | '7d';
      readonly status: 'allowed' | 'allowed_warning' | 'rejected' | null;
      /** 0 to 1, over 1 with what was used beyond the window. */
      readonly used: number | null;
      readonly resetMs: number | null;
    }[];
  } | null;
}

/** A session as its turns show it. */
export interface ProxySession {
  readonly id: string;
  readonly uid: number | null;
  readonly class: SessionClass;
  readonly lanes: number;
  readonly queuedTurns: number;
  /** Turns that had a lane so far, and turns that are over in whatever way. */
  readonly grantedTurns: number;
  readonly finishedTurns: number;
  readonly usedTokens: number;
  /** It is one of a limited number of running agents. */
  readonly holdsPlace: boolean;
  readonly terminated: boolean;
  readonly ageMs: number;
  readonly sinceTurnMs: number;
  readonly runs: readonly { readonly agent: string | null; readonly ageMs: number }[];
}

/** What happened, in the order of `seq`, which rises by 1 for each event of a daemon's life. */
export interface Event {
  readonly seq: number;
  readonly time: string;
  /**
   * `call-start`, `call-end` (with the `record`), `stop`, `freeze`, `thaw`, `lend`, `wait`,
   * `give-back`, `kill`, `oom`, `escaped`, `session-start`, `session-end`, `nested`, `bad-intent`,
   * `unmanaged`, `reload`, `degraded`, `core-down`, `session-class`, `turn-held`, `turn-released`, `run-abandoned`;
   * and `lost` (with `count`), which stands for events that a slow reader missed.
   */
  readonly kind: string;
  readonly session?: string;
  readonly call?: string;
  /** Further fields, by kind; flat, except for `record`. */
  readonly [detail: string]: unknown;
}

/** The event that ends a call carries its record, so that a follower need not ask for it. */
export interface CallEndEvent extends Event {
  readonly kind: 'call-end';
  readonly record: CallRecord;
}

export interface Status {
  readonly version: string;
  readonly pid: number;
  /** As whom the daemon runs; not 0: in what was delegated to that user, with its rights alone. */
  readonly uid: number;
  readonly uptimeMs: number;
  readonly backend: {
    /** Who stops a call at its line: BPF in the kernel, a poller in the daemon, or nobody. */
    readonly mode: 'bpf' | 'user' | 'none';
    readonly hooks: readonly string[];
    /** Why it is this mode, if it is not the best one. */
    readonly reason: string | null;
    /** Everything that works with less than it could, one sentence each. */
    readonly degraded: readonly string[];
  };
  readonly kernel: string;
  readonly cgroup: string;
  readonly socket: string;
  readonly pool: {
    readonly budgetBytes: number;
    /** What is kept free for the host. */
    readonly reserveBytes: number;
    readonly usedBytes: number;
    /** What can still be lent. */
    readonly roomBytes: number;
  };
  readonly sessions: number;
  readonly calls: Readonly<Record<CallState, number>>;
  /** Since the daemon started, by name; the same numbers are in /metrics. */
  readonly counters: Readonly<Record<string, number>>;
}

/** `note`: fine, but good to know. `warn`: enforcement is weaker. `fail`: no enforcement. */
export type CheckStatus = 'ok' | 'note' | 'warn' | 'fail';

export interface Check {
  readonly name: string;
  readonly status: CheckStatus;
  readonly detail: string;
  /** What a person can do about it: one sentence. */
  readonly fix?: string;
}

export interface DoctorReport {
  readonly checks: readonly Check[];
}

/** The body of an answer that is not 200. */
export interface ErrorBody {
  readonly error: string;
}
