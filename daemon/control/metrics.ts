// SPDX-License-Identifier: Apache-2.0
import type { EnforcerCounters, StopEvent } from '../kernel/enforcer.ts';
import type { Pressure } from '../kernel/host.ts';
import { KILL_CODES, type KillCode } from '../policy/decide.ts';
import { Counter, Gauge, Histogram, Registry } from '../prometheus.ts';
import type { StoreCounters } from '../store/write-queue.ts';
import type { UnmanagedReason } from '../toolcall/manager.ts';
import type { RefusalReason } from './server.ts';
import { Tally } from './tally.ts';
import { type CallRecord, callStates, outcomes, type Status } from './types.ts';

/** Where the numbers come from that are read when somebody asks. */
export interface MetricSources {
  readonly status: () => Omit<Status, 'counters'>;
  /** Undefined where nothing enforces. */
  readonly enforcer: () => EnforcerCounters | undefined;
  readonly store: () => StoreCounters;
  /** Events that slow readers of the control socket lost. */
  readonly eventsLost: () => number;
  readonly logLinesDropped: () => number;
  /** Pressure of the host; undefined where PSI is off. */
  readonly pressure: (resource: Resource) => Pressure | undefined;
}

export const resources = ['cpu', 'memory', 'io'] as const;
export type Resource = (typeof resources)[number];

const backendModes = ['bpf', 'user', 'none'] as const satisfies readonly Status['backend']['mode'][];
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
 * All metrics of the daemon: the names stand here and nowhere else. Base units; a label has few values,
 * never a session, a process or a command (those are in events and logs). A counter is there from the
 * start, at 0.
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
      'Commands that ran without a cgroup of their own.',
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
    registerState(this.#registry, sources);
    registerLosses(this.#registry, sources);
    registerPressure(this.#registry, sources);
    registerProcess(this.#registry);
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

/** How the daemon and its calls stand now. */
function registerState(registry: Registry, { status }: MetricSources): void {
  const registers = [registry];
  new Gauge({
    name: 'agentrm_build_info',
    help: 'Always 1; the versions are labels.',
    labelNames: ['version', 'node'],
    registers,
    collect() {
      this.set({ version: status().version, node: process.versions.node }, 1);
    },
  });
  new Gauge({
    name: 'agentrm_backend_info',
    help: '1 for the mode that enforces: BPF, a poller in user space, or nothing.',
    labelNames: ['mode'],
    registers,
    collect() {
      const { backend } = status();
      for (const mode of backendModes) this.set({ mode }, backend.mode === mode ? 1 : 0);
    },
  });
  new Gauge({
    name: 'agentrm_degraded',
    help: 'Things that work with less than they could; agentrm status names them.',
    registers,
    collect() {
      this.set(status().backend.degraded.length);
    },
  });
  new Gauge({
    name: 'agentrm_sessions',
    help: 'Sessions that live.',
    registers,
    collect() {
      this.set(status().sessions);
    },
  });
  new Gauge({
    name: 'agentrm_calls',
    help: 'Calls that have not ended.',
    labelNames: ['state'],
    registers,
    collect() {
      const { calls } = status();
      for (const state of callStates) this.set({ state }, calls[state]);
    },
  });
  const pool = {
    budget: 'Memory that calls may use together.',
    reserve: 'Memory kept free for the host.',
    used: 'Memory that calls use.',
    room: 'Memory that can still be lent.',
  };
  for (const [part, help] of Object.entries(pool) as [keyof typeof pool, string][]) {
    new Gauge({
      name: `agentrm_pool_${part}_bytes`,
      help,
      registers,
      collect() {
        this.set(status().pool[`${part}Bytes`]);
      },
    });
  }
}

/** What got lost on the way, counted elsewhere. */
function registerLosses(registry: Registry, sources: MetricSources): void {
  const counted = (name: string, help: string, read: () => number): void => {
    new Counter({
      name,
      help,
      registers: [registry],
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
  const { enforcer, store } = sources;
  counted(
    'agentrm_bpf_events_dropped_total',
    'Events that found the ring buffer full.',
    () => enforcer()?.eventsDropped ?? 0,
  );
  counted(
    'agentrm_bpf_recursion_misses_total',
    'Runs of a BPF program that the kernel skipped.',
    () => enforcer()?.recursionMisses ?? 0,
  );
  counted(
    'agentrm_bpf_send_signal_errors_total',
    'Stops that the kernel refused.',
    () => enforcer()?.sendSignalErrors ?? 0,
  );
  counted(
    'agentrm_events_lost_total',
    'Events that slow readers of the control socket lost.',
    sources.eventsLost,
  );
  counted(
    'agentrm_log_lines_dropped_total',
    'Log lines that a slow reader of the log lost.',
    sources.logLinesDropped,
  );
  counted('agentrm_store_written_total', 'Finished calls written to the database.', () => store().written);
  counted('agentrm_store_dropped_total', 'Finished calls that were lost.', () => store().dropped);
  counted(
    'agentrm_store_unjournaled_total',
    'Finished calls that a kill of the daemon would have lost while they waited.',
    () => store().unjournaled,
  );
  counted('agentrm_store_errors_total', 'Writes and queries that the database failed.', () => store().errors);
  new Gauge({
    name: 'agentrm_store_pending',
    help: 'Finished calls that wait for the database.',
    registers: [registry],
    collect() {
      this.set(store().pending);
    },
  });
}

/** Pressure of the host, in the words of node_exporter. */
function registerPressure(registry: Registry, { pressure }: MetricSources): void {
  const kinds = [
    ['waiting', 'some task', 'someTotalUs'],
    ['stalled', 'all tasks', 'fullTotalUs'],
  ] as const;
  for (const resource of resources) {
    for (const [kind, who, field] of kinds) {
      new Counter({
        name: `agentrm_pressure_${resource}_${kind}_seconds_total`,
        help: `Time in which ${who} of the host waited for ${resource}; 0 where PSI is off.`,
        registers: [registry],
        collect() {
          this.reset();
          this.inc((pressure(resource)?.[field] ?? 0) / 1e6);
        },
      });
    }
  }
}

/** The daemon's own use. Not prom-client's defaults: those keep a timer running at 100 Hz. */
function registerProcess(registry: Registry): void {
  const registers = [registry];
  new Gauge({
    name: 'agentrm_process_resident_memory_bytes',
    help: 'Resident memory of the daemon.',
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  new Counter({
    name: 'agentrm_process_cpu_seconds_total',
    help: 'CPU time of the daemon.',
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  new Gauge({
    name: 'agentrm_process_start_time_seconds',
    help: 'When the daemon started, in seconds since 1970.',
    registers,
  }).set(Math.round(performance.timeOrigin) / 1000);
}
