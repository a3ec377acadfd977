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
 * GET /v1/doctor                                 DoctorReport
 * GET /v1/advice                                 lines of Advice
 * GET /metrics, /healthz, /readyz                text
 *
 * "Lines" are application/x-ndjson. Any other status than 200 has an ErrorBody. A caller sees its own
 * uid's sessions, calls and events; root and the group agentrm see all.
 */

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
  readonly action: 'freeze' | 'lend' | 'wait' | 'thaw' | 'give-back' | 'kill' | 'escaped';
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
  /** Time that tasks of the call slept over memory.high, summed over its tasks. */
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

/** A session that lives. */
export interface SessionRecord {
  /** As the agent names it. */
  readonly id: string;
  readonly uid: number;
  readonly agent: string | null;
  readonly cgroup: string;
  readonly startedAt: string;
  readonly lastActiveAt: string;
  readonly liveCalls: number;
  readonly finishedCalls: number;
  readonly usedBytes: number;
}

/** What happened, in the order of `seq`, which rises by 1 for each event of a daemon's life. */
export interface Event {
  readonly seq: number;
  readonly time: string;
  /**
   * `call-start`, `call-end` (with the `record`), `stop`, `freeze`, `thaw`, `lend`, `wait`,
   * `give-back`, `kill`, `oom`, `escaped`, `session-start`, `session-end`, `nested`, `bad-intent`,
   * `unmanaged`, `reload`, `degraded`; and `lost` (with `count`), which stands for events that a slow reader missed.
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
