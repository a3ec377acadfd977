// SPDX-License-Identifier: Apache-2.0
import { type Interval, interval, median, quantile, type Summary, summary } from '../stats.ts';

const MINUTE_MS = 60_000;

/** A call that was due at a fixed time. */
export interface DueCall {
  /** Since the first was due. */
  readonly dueMs: number;
  /** From when it was due to its end. */
  readonly tookMs: number;
  /** Its start waited, for too many were running. */
  readonly heldBack: boolean;
}

/** The daemon and its machine at one moment. */
export interface Sample {
  /** Since the first call was due. */
  readonly atMs: number;
  readonly rssBytes: number;
  readonly fds: number;
  readonly cpuMs: number;
  /** Of all CPUs of the machine together. */
  readonly idleMs: number;
}

/** Totals at the end of a minute; of the last one when all calls had ended. */
export interface Tally {
  /** Calls that the daemon managed to their end. */
  readonly managed: number;
  /** Calls that it answered at once to run without a cgroup. */
  readonly unmanaged: number;
  /** Calls that ran, at least at first, without its answer. */
  readonly unanswered: number;
}

export interface Minute extends Tally {
  readonly calls: number;
  readonly heldBack: number;
  readonly callMs: Summary;
  /** Of plain bash, which does the same. */
  readonly bashMs: Summary;
  /** Medians and maximum of the samples. */
  readonly rssBytes: number;
  readonly fds: number;
  readonly mostFds: number;
  /** Of the daemon. */
  readonly cpuMs: number;
  /** Share of the CPUs' time that the machine was not idle, 0 to 1. */
  readonly busy: number;
}

/** The last minute as multiples of the first. */
export interface Growth {
  /** Of plain bash: what the machine has become slower or faster by itself. */
  readonly bashP50: number;
  readonly p50: number;
  readonly p50Interval: Interval;
  readonly p99: number;
  readonly p99Interval: Interval;
  readonly rss: number;
  readonly fds: number;
}

export interface Measured {
  readonly calls: readonly DueCall[];
  /** The same command in plain bash, beside them. */
  readonly bare: readonly DueCall[];
  /** In the order of time, the first when the first call was due. */
  readonly samples: readonly Sample[];
  /** Before the first minute, and after each. */
  readonly tallies: readonly Tally[];
  readonly cores: number;
}

/**
 * What was measured, minute by minute: a call belongs to the one in which it was due.
 * @throws Error if there is a minute without calls, or with fewer than two samples
 */
export function minutesOf({ calls, bare, samples, tallies, cores }: Measured): Minute[] {
  return tallies.slice(1).map((tally, index) => {
    const before = tallies[index] as Tally;
    const within = (atMs: number) => Math.floor(atMs / MINUTE_MS) === index;
    const due = calls.filter(({ dueMs }) => within(dueMs));
    const seen = samples.filter(({ atMs }) => within(atMs));
    const [first, last] = [seen[0], seen.at(-1)];
    if (due.length === 0) throw new Error(`no call was due in minute ${index + 1}`);
    if (first === undefined || last === undefined || first === last)
      throw new Error(`${seen.length} samples in minute ${index + 1}`);
    return {
      calls: due.length,
      heldBack: due.filter(({ heldBack }) => heldBack).length,
      managed: tally.managed - before.managed,
      unmanaged: tally.unmanaged - before.unmanaged,
      unanswered: tally.unanswered - before.unanswered,
      callMs: summary(due.map(({ tookMs }) => tookMs)),
      bashMs: summary(bare.filter(({ dueMs }) => within(dueMs)).map(({ tookMs }) => tookMs)),
      rssBytes: median(seen.map(({ rssBytes }) => rssBytes)),
      fds: median(seen.map(({ fds }) => fds)),
      mostFds: Math.max(...seen.map(({ fds }) => fds)),
      cpuMs: last.cpuMs - first.cpuMs,
      busy: 1 - (last.idleMs - first.idleMs) / ((last.atMs - first.atMs) * cores),
    };
  });
}

type Pair = readonly [first: number, last: number];

/** A quantile of the last minute's times as a multiple of the first's. */
function ratio(pairs: readonly Pair[], share: number): number {
  const [first, last] = [pairs.map(([ms]) => ms), pairs.map(([, ms]) => ms)];
  return quantile(last, share) / quantile(first, share);
}

/** @throws Error if there are fewer than two minutes */
export function growthOf(minutes: readonly Minute[], calls: readonly DueCall[]): Growth {
  const [first, last] = [minutes[0], minutes.at(-1)];
  if (first === undefined || last === undefined || first === last) throw new Error('fewer than two minutes');
  const took = (index: number): number[] =>
    calls.filter(({ dueMs }) => Math.floor(dueMs / MINUTE_MS) === index).map(({ tookMs }) => tookMs);
  const lastTook = took(minutes.length - 1);
  // As many were due in each, but for one where the rate does not divide a minute.
  const pairs = took(0).flatMap((ms, index): Pair[] => {
    const other = lastTook[index];
    return other === undefined ? [] : [[ms, other]];
  });
  return {
    bashP50: last.bashMs.p50 / first.bashMs.p50,
    p50: ratio(pairs, 0.5),
    p50Interval: interval(pairs, (some) => ratio(some, 0.5)),
    p99: ratio(pairs, 0.99),
    p99Interval: interval(pairs, (some) => ratio(some, 0.99)),
    rss: last.rssBytes / first.rssBytes,
    fds: last.fds / first.fds,
  };
}
