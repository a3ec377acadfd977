// SPDX-License-Identifier: Apache-2.0
import type { CallReport, Outcome } from '../control/types.ts';
import { MOST_TASKS } from '../toolcall/intent.ts';
import { durationWord, formatBytes, formatMs, MAX_DURATION_MS, sizeWord } from '../units.ts';
import { ADVISED_FACTOR, ADVISED_OVER_PEAK, advisedBytes } from './advised.ts';
import type { KillCode } from './decide.ts';
import type { Limits } from './limits.ts';

/** What is known of a call at its end, from the kernel and from the decisions; nothing is guessed. */
export interface CallFacts {
  readonly limits: Limits;
  /** The most that memory.max could have been for this user. */
  readonly ceilingBytes: number;
  readonly outcome: Outcome;
  readonly killCode: KillCode | null;
  readonly peakBytes: number;
  readonly throttledMs: number;
  /** Sleeps over memory.high, summed over the call's tasks; or time in which it waited for memory, for whatever reason. */
  readonly throttledBy: 'sleeps' | 'pressure';
  /** `high` of memory.events.local: how often the call's own memory.high was the one that it went over. */
  readonly highEvents: number;
  readonly frozenMs: number;
  readonly admissionWaitMs: number;
  readonly durationMs: number;
  /** `oom` of memory.events.local: how often the call's own memory.max was the one that was hit. */
  readonly oomEvents: number;
  /** `oom` of the cgroups below it, which its command has made: limits that it set itself. */
  readonly oomEventsBelow: number;
  /** `oom_kill` of memory.events: its processes that an OOM killer took, whoever's limit it was. */
  readonly oomKills: number;
  /** The shell ended by itself, not by SIGKILL: what the OOM killer took was not the whole call. */
  readonly shellLived: boolean;
  /** How often a fork was refused by a pids.max … */
  readonly pidsMaxHits: number;
  /** … and whether that was the call's own: up to 6.10 forks are counted here whose limit is further up. */
  readonly pidsMaxOwn: boolean;
  /** It was kept waiting because the pool had nothing to lend. */
  readonly poolShort: boolean;
  /** The most that memory.high stood above the declared one. */
  readonly lentBytes: number;
  /** Processes that were still there when the shell had ended, … */
  readonly leftovers: number;
  /** … and whether they may stay. */
  readonly leftoversKept: boolean;
}

export interface ReportSettings {
  /** A call that was slowed by less is not worth a line. */
  readonly slowMs: number;
}

/** A peak this close to memory.max was stopped by it: what is charged is charged in steps. */
const AT_MAX = 0.95;

interface Clause {
  readonly text: string;
  readonly advice?: string | undefined;
}

/**
 * The line for the agent, without its newline: what happened, in figures, and what to do about it. Null
 * if there is nothing worth its tokens: the call was neither killed nor slowed for long, nothing was
 * refused and nothing left behind.
 */
export function reportLine(facts: CallFacts, settings: ReportSettings): string | null {
  const found = clauses(facts, settings);
  if (found.length === 0) return null;
  const texts = found.map(({ text, advice }) =>
    advice === undefined ? text : `${text}; ask for more with AGENTRM_INTENT="${advice}"`,
  );
  return `agentrm: ${texts.join('; ')}`;
}

/** The line with what it says in figures, for programs; null if there is nothing worth telling. */
export function reportOf(facts: CallFacts, settings: ReportSettings): CallReport | null {
  const line = reportLine(facts, settings);
  if (line === null) return null;
  const advice = clauses(facts, settings).flatMap((clause) => clause.advice ?? []);
  return {
    line,
    advice: advice.length === 0 ? null : advice.join(' '),
    killCode: facts.killCode,
    admissionWaitMs: facts.admissionWaitMs,
    lentBytes: facts.lentBytes,
    pidsMaxHits: facts.pidsMaxHits,
    leftovers: facts.leftovers,
    leftoversKept: facts.leftoversKept,
  };
}

/** The line about an intent that was not understood; `word` comes quoted from parseIntent. */
export function intentLine(
  bad: { readonly word: string; readonly reason: string },
  refused: boolean,
): string {
  const end = refused ? 'the command was not run' : 'it is ignored, the defaults apply';
  return `agentrm: bad AGENTRM_INTENT: ${bad.word}: ${bad.reason}; ${end}`;
}

function clauses(facts: CallFacts, settings: ReportSettings): Clause[] {
  const kill = killed(facts);
  // What was slowed may have run into its timeout for that; any other kill says all about memory itself.
  const slow = kill === null || facts.killCode === 'timeout' ? slowed(facts, settings) : null;
  const found = [kill, slow, waited(facts, settings), refusedForks(facts), leftBehind(facts)];
  return found.filter((clause) => clause !== null);
}

function killed(facts: CallFacts): Clause | null {
  const { limits, peakBytes, frozenMs } = facts;
  switch (facts.killCode) {
    case 'memory-max':
      return overMax(
        facts,
        `killed for memory: stuck at its memory.max ${formatBytes(limits.memoryMaxBytes)}`,
      );
    case 'host-memory':
      return {
        text:
          `killed for memory: the host had none left to lend (used ${formatBytes(peakBytes)}, ` +
          `frozen ${formatMs(frozenMs)}); run it again when less else runs, or make it smaller`,
      };
    case 'timeout':
      return timedOut(limits.timeoutMs);
    case 'session-end':
      return { text: 'killed: its session has ended' };
    case 'wrapper-lost':
      return { text: 'killed: its wrapper was killed' };
    case 'operator':
      return { text: 'killed by the operator of this host' };
    case 'leftover':
    case null:
      return facts.oomKills > 0 ? oomKilled(facts) : null;
  }
}

function oomKilled(facts: CallFacts): Clause {
  const { limits, peakBytes } = facts;
  const maxBytes = limits.memoryMaxBytes;
  const used = formatBytes(peakBytes);
  // Not how many: the kernel counts the first one twice where it then kills all of a cgroup.
  const killed = `killed for memory${facts.shellLived ? ', but not the shell' : ''}`;
  if (facts.oomEvents === 0 && facts.oomEventsBelow > 0) {
    return {
      text: `${killed}: reached a limit that the command itself has set (used ${used}, its memory.max is ${formatBytes(maxBytes)})`,
    };
  }
  if (facts.oomEvents === 0) {
    return {
      text:
        `${killed} by a limit that is not its own (used ${used}, its memory.max is ` +
        `${formatBytes(maxBytes)}); run it again when less else runs, or make it smaller`,
    };
  }
  if (peakBytes < maxBytes * AT_MAX) {
    return {
      text:
        `${killed}: it took ${used} at once and the host could not lend more (its memory.max is ` +
        `${formatBytes(maxBytes)})`,
      advice: `memory.high=${sizeWord(advisedBytes(peakBytes * ADVISED_FACTOR, maxBytes))}`,
    };
  }
  return overMax(facts, `${killed}: reached its memory.max ${formatBytes(maxBytes)}`);
}

function overMax({ limits, ceilingBytes, peakBytes }: CallFacts, how: string): Clause {
  const text = `${how} (peak ${formatBytes(peakBytes)})`;
  const most = advisedBytes(limits.memoryMaxBytes * ADVISED_FACTOR, ceilingBytes);
  if (most > limits.memoryMaxBytes) return { text, advice: `memory.max=${sizeWord(most)}` };
  return { text: `${text}, the most that is allowed here; make it smaller or split it` };
}

function timedOut(timeoutMs: number | null): Clause {
  if (timeoutMs === null) return { text: 'killed: ran too long' };
  return {
    text: `killed: ran longer than its timeout of ${formatMs(timeoutMs)} (time frozen or waiting not counted)`,
    advice: `timeout=${durationWord(Math.min(timeoutMs * ADVISED_FACTOR, MAX_DURATION_MS))}`,
  };
}

function slowed(facts: CallFacts, { slowMs }: ReportSettings): Clause | null {
  const { limits, frozenMs, throttledBy, durationMs, peakBytes, lentBytes } = facts;
  // Who waited for memory, but not at a limit that is known, may have waited for its program's text: that is no news.
  const held = throttledBy === 'sleeps' || facts.highEvents > 0 || facts.poolShort;
  const throttledMs = held ? facts.throttledMs : 0;
  // Many tasks sleep at the same time; the call as a whole cannot have lost more than its duration.
  const lostMs = frozenMs + Math.min(throttledMs, Math.max(0, durationMs - frozenMs));
  if (lostMs < slowMs) return null;
  // Below its own memory.high it can only have been stopped for others.
  const short = facts.poolShort || peakBytes < limits.memoryHighBytes;
  // That it was for its memory.high is known only where the sleeps themselves were seen.
  const how = throttledBy === 'sleeps' ? 'throttled' : 'stalled';
  const parts = [
    frozenMs >= 1 ? `frozen ${formatMs(frozenMs)}${short ? ' while the host was short of it' : ''}` : null,
    throttledMs >= 1 ? `${how} ${formatMs(throttledMs)}` : null,
  ].filter((part) => part !== null);
  const lent = lentBytes > 0 ? ` (${formatBytes(lentBytes)} lent)` : '';
  const text =
    `slowed for memory: ${parts.join(', ')}; used ${formatBytes(peakBytes)} of memory.high ` +
    `${formatBytes(limits.memoryHighBytes)}${lent}`;
  const wantedBytes = advisedBytes(peakBytes * ADVISED_OVER_PEAK, facts.ceilingBytes);
  if (peakBytes < limits.memoryHighBytes || wantedBytes <= limits.memoryHighBytes) return { text };
  return { text, advice: `memory.high=${sizeWord(wantedBytes)}` };
}

function waited({ admissionWaitMs }: CallFacts, { slowMs }: ReportSettings): Clause | null {
  if (admissionWaitMs < slowMs) return null;
  return { text: `waited ${formatMs(admissionWaitMs)} for memory before it started` };
}

function refusedForks({ pidsMaxHits, pidsMaxOwn, limits }: CallFacts): Clause | null {
  if (pidsMaxHits === 0) return null;
  const refused = `${pidsMaxHits} ${plural(pidsMaxHits, 'fork')} refused`;
  if (!pidsMaxOwn) {
    const own = Number.isFinite(limits.pidsMax) ? limits.pidsMax : 'max';
    return { text: `${refused} by a limit that is not its own (its pids.max is ${own})` };
  }
  return {
    text: `reached its pids.max ${limits.pidsMax}: ${refused}`,
    advice: `pids.max=${Math.min(limits.pidsMax * ADVISED_FACTOR, MOST_TASKS)}`,
  };
}

function leftBehind({ leftovers, leftoversKept }: CallFacts): Clause | null {
  if (leftovers === 0) return null;
  const processes = `${leftovers} ${plural(leftovers, 'process', 'processes')}`;
  return {
    text: leftoversKept
      ? `${processes} left running in the background, within the same limits`
      : `${processes} left in the background, killed`,
  };
}

function plural(count: number, one: string, many = `${one}s`): string {
  return count === 1 ? one : many;
}
