// SPDX-License-Identifier: Apache-2.0
import { setFlagsFromString } from 'node:v8';
import type { ProxyConfig } from '../config/proxy.ts';
import type { ProxyMonitor } from '../control/types.ts';
import { messageOf } from '../errors.ts';
import { native } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import { ProxyServer, type ProxySettings } from '../proxy/server.ts';
import type { TcpOwner } from '../proxy/socket-owner.ts';
import type { SchedulerEvents } from '../scheduler/events.ts';
import { disciplineOf } from '../scheduler/policies.ts';
import { realClock } from '../scheduler/real-clock.ts';
import type { SavedState } from '../scheduler/saved-state.ts';
import { Scheduler } from '../scheduler/scheduler.ts';
import { defaultSettings, type SchedulerSettings } from '../scheduler/settings.ts';
import type { SchedulerSnapshot } from '../scheduler/snapshot.ts';
import type { CallsOfSession, HostPressure, TurnClass } from '../scheduler/types.ts';
import type { CoreEvent } from './messages.ts';
import { proxyMonitor } from './monitor.ts';
import { upstreamsOf } from './upstreams.ts';

/**
 * A turn calls some hundred functions, most of them once. V8 makes its best code of one after 3,000 calls, and so many
 * turns are more than a host has in a day: with 300, what the proxy added was an eighth less after 2,400 of them. Set
 * here and not on the command line: a later V8 that does not know it says so and goes on, and what finds modules at the
 * start is left as it is.
 */
const OPTIMIZE_EARLY = '--invocation-count-for-turbofan=300';

/** How often the state is handed out if it has changed: what a crash can lose. */
const SAVE_MS = 1_000;

/** Fields of the state that tell when something was. */
const TIMES: ReadonlySet<string> = new Set([
  'savedAtWallMs',
  'sinceWallMs',
  'startedWallMs',
  'lastTurnWallMs',
]);

export interface CoreOptions {
  readonly config: ProxyConfig;
  /** Names credentials. */
  readonly key: string;
  /** What an earlier core has handed out, or null. */
  readonly saved: string | null;
  readonly log: Log;
  /** Gets what should outlive this process, one line of JSON. */
  readonly keep: (state: string) => void;
  /** A session has shown its class, or another one. */
  readonly onClass?: (session: string, turnClass: TurnClass) => void;
  /** What users may want to know of. */
  readonly onEvent?: (event: CoreEvent) => void;
}

/** Proxy and scheduler, listening. */
export interface Core {
  readonly port: number;
  setPressure(pressure: HostPressure): void;
  /** What the node agent knows of a session's tool calls; null: nothing any more. */
  setCalls(session: string, calls: CallsOfSession | null): void;
  /** Cgroups that are frozen, all of them. */
  setFrozen(places: ReadonlySet<number>): void;
  /**
   * Another configuration, as far as {@link reloadable} lets it be in force.
   * @throws AgentrmError if it cannot be; the old one is in force then.
   */
  configure(config: ProxyConfig): void;
  /** The Prometheus text format. */
  metrics(): Promise<string>;
  /** @param sees whose sessions; default everybody's. */
  snapshot(sees?: (session: string) => boolean): SchedulerSnapshot;
  /** @param uid whose sessions; undefined: everybody's. */
  monitor(uid: number | undefined): ProxyMonitor;
  /** Drains, hands out the state a last time, and ends. */
  close(drainMs: number): Promise<void>;
}

/**
 * Starts what needs no privileges.
 * @throws AgentrmError if it cannot listen.
 */
export async function startCore(options: CoreOptions): Promise<Core> {
  const { config, key, log, keep } = options;
  const { listen } = config;
  if (listen === null) throw new Error('proxy.listen is off');
  setFlagsFromString(OPTIMIZE_EARLY);
  const scheduler = schedulerOf(options);
  const proxy = new ProxyServer({
    settings: proxySettingsOf(config, listen, log),
    scheduler,
    clock: realClock,
    key,
    tcpOwner: tcpOwnerOf(log),
    log,
  });
  const port = await proxy.listen();
  let last = '';
  const hand = (): void => {
    // Times aside, nothing has changed while nobody asked for anything: the two clocks differ by a fraction of a ms.
    const state = scheduler.save();
    const sign = JSON.stringify(state, (name, value: unknown) => (TIMES.has(name) ? 0 : value));
    if (sign === last) return;
    last = sign;
    keep(JSON.stringify(state));
  };
  const timer = setInterval(hand, SAVE_MS);
  return {
    port,
    setPressure: (pressure) => scheduler.setHostPressure(pressure),
    setCalls: (session, calls) => scheduler.setCalls(session, calls),
    setFrozen: (places) => scheduler.setFrozen(places),
    configure(changed) {
      proxy.configure(proxySettingsOf(changed, listen, log));
      scheduler.configure(settingsOf(changed));
    },
    metrics: () => proxy.metrics.text(),
    snapshot: (sees) => scheduler.snapshot(sees),
    monitor: (uid) => proxyMonitor(scheduler, uid),
    async close(drainMs) {
      clearInterval(timer);
      // Before the queue is refused: its places are what is to be kept.
      hand();
      await proxy.close(drainMs);
    },
  };
}

/** The proxy alone does without the addon where there is none. */
function tcpOwnerOf(log: Log): TcpOwner | null {
  try {
    const { tcpOwner } = native();
    return tcpOwner;
  } catch (error) {
    log.info({ problem: messageOf(error) }, 'owners of connections are looked up in /proc');
    return null;
  }
}

function proxySettingsOf(config: ProxyConfig, listen: ProxySettings['listen'], log: Log): ProxySettings {
  const { mode, earlyAfterMs, pingMs } = config.queue;
  const upstreams = upstreamsOf(config.upstreams, process.env);
  for (const [provider, { via }] of Object.entries(upstreams)) {
    // Without what may be its password.
    if (via !== null) log.info({ provider, via: via.host }, 'upstream behind a proxy');
  }
  return {
    listen,
    upstreams,
    maxBodyBytes: config.bodyBytes,
    maxBodiesBytes: config.bodiesBytes,
    maxConnections: config.connections,
    earlyStream: mode === 'hold' ? null : { afterMs: earlyAfterMs, pingMs },
    background: config.background,
  };
}

function schedulerOf(from: CoreOptions): Scheduler {
  const { config, saved, log } = from;
  const discipline = disciplineOf(config.queue.policy);
  const options = {
    clock: realClock,
    random: Math.random,
    settings: settingsOf(config),
    events: eventsOf(from),
    ...(discipline === undefined ? {} : { discipline }),
  };
  if (saved !== null) {
    try {
      return new Scheduler({ ...options, saved: JSON.parse(saved) as SavedState });
    } catch (error) {
      log.error({ problem: messageOf(error) }, 'the state of the last core cannot be used');
    }
  }
  return new Scheduler(options);
}

/** What happens goes into the log, and to whoever asks for events. */
function eventsOf({ log, onClass, onEvent }: CoreOptions): SchedulerEvents {
  return {
    ...(onClass === undefined ? {} : { onClass }),
    onAbandoned: (evidence) => {
      log.warn(evidence, 'run abandoned');
      const { calls, ...rest } = evidence;
      onEvent?.({
        kind: 'run-abandoned',
        ...rest,
        noCallForMs: calls === null ? null : Math.round(calls.noneForMs),
      });
    },
    onHeld: ({ host, ...turn }) => {
      log.debug({ ...turn, ...host }, 'turn held');
      onEvent?.({ kind: 'turn-held', ...turn, memoryPressure: host.memory, poolShort: host.poolShort });
    },
    onHeldEnd: ({ host: _, ...turn }, heldMs) => {
      log.debug({ ...turn, heldMs }, 'turn released');
      onEvent?.({ kind: 'turn-released', ...turn, heldMs: Math.round(heldMs) });
    },
  };
}

/** The scheduler's own settings, with those that the configuration has. */
export function settingsOf(config: ProxyConfig): SchedulerSettings {
  const { queue, lanes, reaper, retries, sessionTokens, agents } = config;
  const { abandonedMs, ...silence } = reaper;
  const usual = defaultSettings;
  const never = Number.POSITIVE_INFINITY;
  return {
    ...usual,
    lanes: { ...usual.lanes, ...lanes, most: Math.max(usual.lanes.most, lanes.start) },
    queue: { ...usual.queue, maxWaitMs: queue.waitMs },
    reaper: { ...usual.reaper, ...silence },
    retry: { ...usual.retry, most: retries },
    limits: { ...usual.limits, sessionTokens },
    agents: { ...usual.agents, running: agents ?? never, abandonedMs: abandonedMs ?? never },
  };
}
