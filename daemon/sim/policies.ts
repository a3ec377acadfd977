// SPDX-License-Identifier: Apache-2.0
import type { Discipline } from '../scheduler/queue.ts';
import { defaultSettings, type SchedulerSettings } from '../scheduler/settings.ts';
import { FifoQueue, PaperQueue, PriorityQueue, RoundRobinQueue } from './baselines.ts';

export const POLICIES = ['fifo', 'rr', 'pq', 'mlfq', 'agentrm'] as const;
export type Policy = (typeof POLICIES)[number];

export const PRESETS = ['paper', 'table', 'honest'] as const;
export type Preset = (typeof PRESETS)[number];

export interface PresetSettings {
  /** Silence after which a turn is taken to hang. */
  readonly silentMs: number;
  readonly retries: number;
  /** A retry that hangs as well holds its lane until that is noticed; otherwise it fails at once. */
  readonly retriesHang: boolean;
}

export const presets: Readonly<Record<Preset, PresetSettings>> = {
  // What the paper's text says.
  paper: { silentMs: 30_000, retries: 1, retriesHang: false },
  // What its tables can come from: lanes held for 19 to 20 s on average, three hung turns of four recovered.
  table: { silentMs: 15_000, retries: 2, retriesHang: false },
  // The same without the free retries.
  honest: { silentMs: 15_000, retries: 2, retriesHang: true },
};

/** The paper's reaper looks every 5 s. */
const PAPER_SCAN_MS = 5_000;

/**
 * The scheduler's settings for a policy. All have fixed lanes and clients of endless patience, as in the paper; only
 * `mlfq` and `agentrm` have a reaper.
 */
export function settingsFor(policy: Policy, preset: Preset, lanes: number): SchedulerSettings {
  const { silentMs, retries } = presets[preset];
  const never = Number.POSITIVE_INFINITY;
  const limitMs = policy === 'mlfq' || policy === 'agentrm' ? silentMs : never;
  const settings: SchedulerSettings = {
    ...defaultSettings,
    lanes: { ...defaultSettings.lanes, fixed: lanes },
    queue: { ...defaultSettings.queue, maxWaitMs: never },
    reaper: {
      ...defaultSettings.reaper,
      firstByteMs: limitMs,
      betweenBytesMs: limitMs,
      pingsOnlyMs: never,
      leaseMs: never,
      scanMs: policy === 'mlfq' ? PAPER_SCAN_MS : null,
    },
    retry: { ...defaultSettings.retry, most: retries, patienceMs: never },
    agents: { ...defaultSettings.agents, abandonedMs: never },
  };
  if (policy !== 'mlfq') return settings;
  // The paper's retries know neither delay nor budget.
  return {
    ...settings,
    retry: { ...settings.retry, backoffMs: 0, backoffMostMs: 0, hungDelayMs: 0, lostShare: never },
  };
}

/** The order of the queue, or undefined for the scheduler's own. */
export function disciplineFor(policy: Policy): (() => Discipline) | undefined {
  return {
    fifo: () => new FifoQueue(),
    rr: () => new RoundRobinQueue(),
    pq: () => new PriorityQueue(),
    mlfq: () => new PaperQueue(),
    agentrm: undefined,
  }[policy];
}
