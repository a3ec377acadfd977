// SPDX-License-Identifier: Apache-2.0
import type { EnforcerCounters } from '../kernel/enforcer.ts';
import type { Pressure } from '../kernel/host.ts';
import { Counter, Gauge, type Registry } from '../prometheus.ts';
import type { StoreCounters } from '../store/write-queue.ts';
import { callStates, type Status } from './types.ts';

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
/** Those metrics of the daemon whose numbers are kept elsewhere, and read when somebody asks. */
export function registerReadings(registry: Registry, sources: MetricSources): void {
  registerState(registry, sources);
  registerLosses(registry, sources);
  registerPressure(registry, sources);
  registerProcess(registry);
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
