// SPDX-License-Identifier: Apache-2.0
import type { StopEvent } from '../kernel/enforcer.ts';
import { KILL_CODES, type KillCode } from '../policy/decide.ts';
import { Gauge, Histogram, Registry } from '../prometheus.ts';
import type { UnmanagedReason } from '../toolcall/unmanaged.ts';
import { type MetricSources, registerReadings } from './metric-readings.ts';
import type { RefusalReason } from './server.ts';
import { Tally } from './tally.ts';
import { type CallRecord, outcomes } from './types.ts';

const stopReasons = [
  'line',
  'budget-time',
  'budget-events',
  'pool',
] as const satisfies readonly StopEvent['reason'][];
const unmanagedReasons = [
  'nested',
  'outside',
  'degraded',
  'limit',
  'error',
  'gone',
] as const satisfies readonly UnmanagedReason[];
const refusalReasons = [
  'too-many',
  'no-credentials',
  'silent',
  'malformed',
  'too-long',
  'out-of-order',
] as const satisfies readonly RefusalReason[];

/** From what an idle host needs to the longest wait that a configuration can reasonably allow. */
const WAIT_BUCKETS_S = [0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10];

/** From a `true` to a build; agents end a call after 10 minutes at the latest. */
const DURATION_BUCKETS_S = [0.01, 0.05, 0.25, 1, 5, 15, 60, 300, 600, 1800];

/**
 * All metrics of the daemon: the names stand here, and in metric-readings.ts those that are read elsewhere when
 * somebody asks. Base units; a label has few values, never a session, a process or a command (those are in events and
 * logs). A counter is there from the start, at 0.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #ended: Tally<CallRecord['outcome']>;
  readonly #stops: Tally<StopEvent['reason']>;
  readonly #kills: Tally<KillCode>;
  readonly #unmanaged: Tally<UnmanagedReason>;
  readonly #refused: Tally<RefusalReason>;
  /** By the kind of event that they count. */
  readonly #events: ReadonlyMap<string, Tally>;
  readonly #oomKills: Tally;
  readonly #throttledSeconds: Tally;
  readonly #frozenSeconds: Tally;
  readonly #admissionWait: Histogram;
  readonly #duration: Histogram;
  readonly #reloadSuccess: Gauge;

  constructor(sources: MetricSources) {
    const registers = [this.#registry];
    const tally = (name: string, help: string): Tally => new Tally(this.#registry, { name, help });
    const tallyBy = <L extends string>(name: string, help: string, label: string, values: readonly L[]) =>
      new Tally<L>(this.#registry, { name, help, label: { name: label, values } });

    this.#ended = tallyBy('agentrm_calls_total', 'Calls that ended.', 'outcome', outcomes);
    this.#stops = tallyBy('agentrm_stops_total', 'Stops of a call over its line.', 'reason', stopReasons);
    this.#kills = tallyBy('agentrm_kills_total', 'Calls that were killed.', 'reason', KILL_CODES);
    this.#unmanaged = tallyBy(
      'agentrm_unmanaged_total',
      'Commands that got no cgroup of their own.',
      'reason',
      unmanagedReasons,
    );
    this.#refused = tallyBy(
      'agentrm_connections_refused_total',
      'Connections to the control socket that were closed on the peer.',
      'reason',
      refusalReasons,
    );
    this.#events = new Map([
      ['freeze', tally('agentrm_freezes_total', 'Calls that were frozen.')],
      ['thaw', tally('agentrm_thaws_total', 'Calls that were thawed.')],
      ['lend', tally('agentrm_lends_total', 'Loans of memory to a call.')],
      ['give-back', tally('agentrm_give_backs_total', 'Loans that a call gave back, whole or in part.')],
      ['wait', tally('agentrm_waits_total', 'Decisions to leave a call frozen for now.')],
      ['escaped', tally('agentrm_escapes_total', "Processes that left their call's cgroup by themselves.")],
      ['bad-intent', tally('agentrm_bad_intents_total', 'Intents that were void because of a bad word.')],
    ]);
    this.#oomKills = tally('agentrm_oom_kills_total', 'Processes of calls killed by the OOM killer.');
    this.#throttledSeconds = tally(
      'agentrm_call_throttled_seconds_total',
      'Time that tasks of ended calls slept over memory.high.',
    );
    this.#frozenSeconds = tally('agentrm_call_frozen_seconds_total', 'Time that ended calls were frozen.');
    this.#admissionWait = new Histogram({
      name: 'agentrm_admission_wait_seconds',
      help: 'Time that calls waited for admission.',
      buckets: WAIT_BUCKETS_S,
      registers,
    });
    this.#duration = new Histogram({
      name: 'agentrm_call_duration_seconds',
      help: 'Time from admission to the end of a call.',
      buckets: DURATION_BUCKETS_S,
      registers,
    });
    this.#reloadSuccess = new Gauge({
      name: 'agentrm_config_reload_success',
      help: 'Whether the last configuration that was read is in force.',
      registers,
    });
    this.#reloadSuccess.set(1);
    registerReadings(this.#registry, sources);
  }

  /** A call ended. */
  finished({ outcome, durationMs, memory }: CallRecord): void {
    this.#ended.add(1, outcome);
    this.#duration.observe(durationMs / 1000);
    this.#oomKills.add(memory.oomKills);
    this.#throttledSeconds.add(memory.throttledMs / 1000);
    this.#frozenSeconds.add(memory.frozenMs / 1000);
  }

  admitted(waitMs: number): void {
    this.#admissionWait.observe(waitMs / 1000);
  }

  unmanaged(reason: UnmanagedReason): void {
    this.#unmanaged.add(1, reason);
  }

  refused(reason: RefusalReason): void {
    this.#refused.add(1, reason);
  }

  reloaded(success: boolean): void {
    this.#reloadSuccess.set(success ? 1 : 0);
  }

  /** Counts what an event of the control socket tells of; other kinds are not counted. */
  event(kind: string, detail: { readonly reason?: unknown; readonly code?: unknown }): void {
    this.#events.get(kind)?.add(1);
    const stopped = kind === 'stop' && stopReasons.find((reason) => reason === detail.reason);
    if (stopped) this.#stops.add(1, stopped);
    const killed = kind === 'kill' && KILL_CODES.find((code) => code === detail.code);
    if (killed) this.#kills.add(1, killed);
  }

  /** The counters that `agentrm status` shows. */
  counters(): Record<string, number> {
    const events = (kind: string) => this.#events.get(kind)?.total() ?? 0;
    const ended = outcomes.map((outcome) => [outcome, this.#ended.total(outcome)] as const);
    return {
      calls: this.#ended.total(),
      ...Object.fromEntries(ended),
      stops: this.#stops.total(),
      freezes: events('freeze'),
      lends: events('lend'),
      kills: this.#kills.total(),
      oomKills: this.#oomKills.total(),
      unmanaged: this.#unmanaged.total(),
      unmanagedOutside: this.#unmanaged.total('outside'),
      escapes: events('escaped'),
      badIntents: events('bad-intent'),
      refused: this.#refused.total(),
    };
  }

  /** The Prometheus text format, version 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}

export function createMetrics(sources: MetricSources): Metrics {
  return new Metrics(sources);
}
