// SPDX-License-Identifier: Apache-2.0
import type { Resource } from './resources.ts';

/** Limits that the administrator knows, for upstreams that do not tell theirs. */
export interface ConfiguredLimit {
  /** Absent: every provider. */
  readonly provider?: string;
  /** Absent: every model class. */
  readonly modelClass?: string;
  readonly perMin: Readonly<Partial<Record<Resource, number>>>;
}

export interface SchedulerSettings {
  readonly lanes: LaneSettings;
  readonly queue: QueueSettings;
  readonly levels: LevelSettings;
  readonly reaper: ReaperSettings;
  readonly retry: RetrySettings;
  readonly limits: LimitSettings;
  readonly fairness: FairnessSettings;
  readonly admission: AdmissionSettings;
  readonly agents: AgentSettings;
  readonly tables: TableSettings;
}

export interface LaneSettings {
  /** So many lanes for each upstream, whatever it answers; null: as many as it bears. */
  readonly fixed: number | null;
  /** Lanes at the start. */
  readonly start: number;
  readonly least: number;
  readonly most: number;
  /** One lane more after so many clean responses in a row of use … */
  readonly raiseAfter: number;
  /** … while at least this share of the lanes is in use: what is not used says nothing. */
  readonly raiseWhenUsed: number;
  /** What is left of the lanes after a 429 or 529 … */
  readonly cutTo: number;
  /** … which counts once in this time: the answers to what was sent together come together. */
  readonly cutEveryMs: number;
}

export interface QueueSettings {
  readonly maxTurns: number;
  readonly maxTurnsOfSession: number;
  /** The longest wait of one submission; Infinity: no bound. */
  readonly maxWaitMs: number;
  /** How long the place of a turn that waited so long is kept for the same request. */
  readonly placeKeptMs: number;
  /** Retry-After of such a refusal. */
  readonly comeBackMs: number;
}

export interface LevelSettings {
  /** Service in one run after which it goes down from level 0 and from level 1. */
  readonly quantaMs: readonly [number, number];
  /** Of the lanes that become free, when every level has turns waiting. */
  readonly shares: readonly [number, number, number];
  /** Who waited for so long is served next, of each session one in a round … */
  readonly agingMs: number;
  /** … at most once in so many dispatches. */
  readonly agingOneIn: number;
}

export interface ReaperSettings {
  /** Tell of hung turns, end none. */
  readonly dryRun: boolean;
  readonly firstByteMs: number;
  /** Any byte, keep-alives too. */
  readonly betweenBytesMs: number;
  /** Keep-alives and nothing else. */
  readonly pingsOnlyMs: number;
  /** A response that is not streamed, of a client that does not say how long it waits. */
  readonly wholeResponseMs: number;
  /** No lease lives longer. */
  readonly leaseMs: number;
  /** Turns are only looked at so often; null: each has a timer. Of use to the simulator alone. */
  readonly scanMs: number | null;
}

export interface RetrySettings {
  /** Of turns that hung or failed. */
  readonly most: number;
  /** Of turns that were turned away with 429 or 529, which cost the upstream nothing. */
  readonly mostTurnedAway: number;
  /** Before the first retry; doubles with each. */
  readonly backoffMs: number;
  readonly backoffMostMs: number;
  /** A random part of the delay that is left out, or put on top of a Retry-After. */
  readonly jitter: number;
  /** Before the retry of a turn that hung, at random up to this. */
  readonly hungDelayMs: number;
  /** From the second retry of a hung turn on, if others wait: lane time lost to retries, of the time that served. */
  readonly lostShare: number;
  readonly lostHalfLifeMs: number;
  /** No retry begins later than this after the turn was submitted: its client has given up. */
  readonly patienceMs: number;
  /** How long a request whose retries are used up is remembered. */
  readonly rememberMs: number;
}

export interface LimitSettings {
  readonly configured: readonly ConfiguredLimit[];
  /** What a turn is taken to produce before any has ended. */
  readonly outputTokens: number;
  /** Weight of the newest turn in the mean of what turns produce. */
  readonly outputWeight: number;
  /** Longest silence that a Retry-After may ask of the upstream's turns. */
  readonly pauseMostMs: number;
  /** Pause after a 429 or 529 that names none; doubles while nothing else is answered. */
  readonly pauseMs: number;
  readonly pauseUnnamedMostMs: number;
  /** How long nothing is sent after the account's quota was used up, unless the upstream says. */
  readonly quotaPauseMs: number;
  /** An account that is turned away for longer is asked again after so long. */
  readonly tryMs: number;
  /** Tokens that one session may use, input and output; null: no budget. */
  readonly sessionTokens: number | null;
}

export interface FairnessSettings {
  readonly halfLifeMs: number;
  /** Shares that differ by less than this factor count as equal: then who came first goes first. */
  readonly equalWithin: number;
}

export interface AdmissionSettings {
  /** Of each rate limit, what turns of a level leave to better ones, if any came in the last minute. */
  readonly reserve: readonly [number, number, number];
  /** Memory pressure from which on turns get fewer lanes, and at which they get one: subagents, background. */
  readonly pressure: readonly [PressureRange, PressureRange];
  /** Memory pressure for which a short pool counts, whatever the host's own. */
  readonly poolShortCounts: number;
}

/** Of 0 to 1. */
export interface PressureRange {
  readonly from: number;
  readonly full: number;
}

export interface AgentSettings {
  /** Sessions that may have a run under way at a time; Infinity: any number. */
  readonly running: number;
  /** A run of which nothing was seen or heard for so long is abandoned; Infinity: none is. */
  readonly abandonedMs: number;
  /** A session is of the best class that it showed within so long before its newest turn. */
  readonly classMs: number;
}

export interface TableSettings {
  readonly upstreams: number;
  readonly sessions: number;
  readonly places: number;
}

export const defaultSettings: SchedulerSettings = {
  lanes: {
    fixed: null,
    // More than one developer's agents use at once, so that nobody waits who need not, and few enough that the
    // first answers of an overloaded upstream arrive before hundreds of requests are under way.
    start: 32,
    least: 1,
    // Eight times the start: an upstream that takes more has no need of us.
    most: 256,
    // Loss-based, as Netflix's concurrency-limits advises clients: latency of a model says how much it writes,
    // not how loaded it is. Ten clean answers a lane more: some 3 % at 32.
    raiseAfter: 10,
    raiseWhenUsed: 0.5,
    cutTo: 0.5,
    // A round trip to a public API with its first token.
    cutEveryMs: 1_000,
  },
  queue: {
    // About 1 KB each; at 50 requests a minute it is more than three hours' work.
    maxTurns: 10_000,
    // A tenth, so that one agent's storm leaves room for the others.
    maxTurnsOfSession: 1_000,
    // Claude Code gives up after 300.0 s; the response needs a part of that.
    maxWaitMs: 240_000,
    // Clients come back after the Retry-After and their own jitter.
    placeKeptMs: 60_000,
    comeBackMs: 1_000,
  },
  levels: {
    // A short answer passes at its level; what has run for most of a minute is a long job, whoever began it.
    quantaMs: [10_000, 40_000],
    // Shares and no boost: a boost lifts all that waits, and under overload that is everything (interactive P95
    // 207 s against 48 s).
    shares: [8, 3, 1],
    // The patience of a client, which has then come back at least once.
    agingMs: 300_000,
    agingOneIn: 4,
  },
  reaper: {
    dryRun: false,
    // Models think 30 to 120 s before the first token, but send headers and pings meanwhile.
    firstByteMs: 120_000,
    betweenBytesMs: 120_000,
    // Under the 300 s at which Claude Code gives up, so that the agent reads an error and not a cut stream.
    pingsOnlyMs: 280_000,
    // The SDKs' own timeout.
    wholeResponseMs: 600_000,
    // The SDKs refuse requests that would take more than an hour (128 K tokens).
    leaseMs: 3_600_000,
    scanMs: null,
  },
  retry: {
    // As the SDKs do, which are told not to add theirs.
    most: 2,
    // Bounded by patience rather than by number: a turned-away request has used nothing.
    mostTurnedAway: 8,
    backoffMs: 500,
    backoffMostMs: 8_000,
    jitter: 0.25,
    // It was silent for two minutes: there is nothing to wait for, only others to be kept apart from.
    hungDelayMs: 250,
    // A second retry after two hangs is as likely to hang as to help, and holds a lane others wait for. 10 %, the
    // retry budget of Google's SRE book, section "Handling Overload".
    lostShare: 0.1,
    lostHalfLifeMs: 300_000,
    patienceMs: 285_000,
    rememberMs: 60_000,
  },
  limits: {
    configured: [],
    // A file written, or twice what a tool call and a sentence take: too much does no harm until it is known better.
    outputTokens: 800,
    // Fifty turns: answers differ by a factor of ten, and a mean of ten of them still does by two.
    outputWeight: 0.02,
    pauseMostMs: 60_000,
    pauseMs: 500,
    pauseUnnamedMostMs: 15_000,
    quotaPauseMs: 60_000,
    // One request that costs nothing, so that who pays for more in between does not wait out the week, and nobody a day
    // that an upstream named by mistake.
    tryMs: 300_000,
    sessionTokens: null,
  },
  fairness: {
    // Limits count by the minute: who was greedy a few minutes ago has paid by now.
    halfLifeMs: 60_000,
    // Half more or less is chance; being served out of order for it only makes waits longer (P95 of equal agents 49 s,
    // 51 s at 1.25; Jain's index with one greedy agent 0.996 and 0.997).
    equalWithin: 1.5,
  },
  admission: {
    // A user's turn finds a fifth of the limit left by background work, and a twentieth by subagents.
    reserve: [0, 0.05, 0.2],
    // PSI some: at 10 % programs are noticeably slower, at 40 % hosts thrash. Subagents have somebody who waits for
    // them: they are slowed where slowing the background was not enough.
    pressure: [
      { from: 0.4, full: 0.8 },
      { from: 0.1, full: 0.4 },
    ],
    // One background turn at a time, and subagents as before: calls wait already.
    poolShortCounts: 0.4,
  },
  agents: {
    // Lanes and limits do for most; agents whose runs must not be under way together are the administrator's to know.
    running: Number.POSITIVE_INFINITY,
    // Three times the longest command that Claude Code lets run in the foreground (10 min), for agents whose calls are
    // not known here, and for users who are asked something on the way.
    abandonedMs: 1_800_000,
    // Agents ask small models for titles and summaries on the way: that makes no background session of a user's.
    classMs: 300_000,
  },
  tables: {
    // Credentials times model classes in use on one host, ten times over.
    upstreams: 256,
    sessions: 10_000,
    places: 10_000,
  },
};
