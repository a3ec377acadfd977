// SPDX-License-Identifier: Apache-2.0
import type { ProxyConfig } from '../config/proxy.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import { ProxyServer } from '../proxy/server.ts';
import { realClock } from '../scheduler/real-clock.ts';
import { Scheduler } from '../scheduler/scheduler.ts';
import { defaultSettings, type SchedulerSettings } from '../scheduler/settings.ts';
import type { HostPressure, SavedState, SchedulerSnapshot } from '../scheduler/types.ts';

/** How often the state is handed out if it has changed: what a crash can lose. */
const SAVE_MS = 1_000;

export interface CoreOptions {
  readonly config: ProxyConfig;
  /** Names credentials. */
  readonly key: string;
  /** What an earlier core has handed out, or null. */
  readonly saved: string | null;
  readonly log: Log;
  /** Gets what should outlive this process, one line of JSON. */
  readonly keep: (state: string) => void;
}

/** Proxy and scheduler, listening. */
export interface Core {
  readonly port: number;
  setPressure(pressure: HostPressure): void;
  /** The Prometheus text format. */
  metrics(): Promise<string>;
  snapshot(): SchedulerSnapshot;
  /** Drains, hands out the state a last time, and ends. */
  close(drainMs: number): Promise<void>;
}

/**
 * Starts what needs no privileges.
 * @throws AgentrmError if it cannot listen.
 */
export async function startCore({ config, key, saved, log, keep }: CoreOptions): Promise<Core> {
  const { listen } = config;
  if (listen === null) throw new Error('proxy.listen is off');
  const scheduler = schedulerOf(config, saved, log);
  const { mode, earlyAfterMs, pingMs } = config.queue;
  const proxy = new ProxyServer({
    settings: {
      listen,
      upstreams: { anthropic: config.upstreams.anthropic.url, openai: config.upstreams.openai.url },
      maxBodyBytes: config.bodyBytes,
      maxBodiesBytes: config.bodiesBytes,
      maxConnections: config.connections,
      earlyStream: mode === 'hold' ? null : { afterMs: earlyAfterMs, pingMs },
      background: config.background,
    },
    scheduler,
    clock: realClock,
    key,
    log,
  });
  const port = await proxy.listen();
  let last = '';
  const hand = (): void => {
    // Times aside, nothing has changed while nobody asked for anything.
    const state = scheduler.save();
    const sign = JSON.stringify({ ...state, savedAtWallMs: 0 });
    if (sign === last) return;
    last = sign;
    keep(JSON.stringify(state));
  };
  const timer = setInterval(hand, SAVE_MS);
  return {
    port,
    setPressure: (pressure) => scheduler.setHostPressure(pressure),
    metrics: () => proxy.metrics.text(),
    snapshot: () => scheduler.snapshot(),
    async close(drainMs) {
      clearInterval(timer);
      // Before the queue is refused: its places are what is to be kept.
      hand();
      await proxy.close(drainMs);
    },
  };
}

function schedulerOf(config: ProxyConfig, saved: string | null, log: Log): Scheduler {
  const options = { clock: realClock, random: Math.random, settings: settingsOf(config) };
  if (saved !== null) {
    try {
      return new Scheduler({ ...options, saved: JSON.parse(saved) as SavedState });
    } catch (error) {
      log.error({ problem: messageOf(error) }, 'the state of the last core cannot be used');
    }
  }
  return new Scheduler(options);
}

/** The scheduler's own settings, with those that the configuration has. */
export function settingsOf({ queue, lanes, reaper, retries, sessionTokens }: ProxyConfig): SchedulerSettings {
  const usual = defaultSettings;
  return {
    ...usual,
    lanes: { ...usual.lanes, ...lanes, most: Math.max(usual.lanes.most, lanes.start) },
    queue: { ...usual.queue, maxWaitMs: queue.waitMs },
    reaper: { ...usual.reaper, ...reaper },
    retry: { ...usual.retry, most: retries },
    limits: { ...usual.limits, sessionTokens },
  };
}
