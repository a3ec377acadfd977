// SPDX-License-Identifier: Apache-2.0
import { release } from 'node:os';
import { nowMs } from '../clock.ts';
import type { Paths } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import type { Backend } from '../kernel/backend.ts';
import type { HostSettings } from '../policy/host.ts';
import type { SessionClasses } from '../session/classes.ts';
import { sessionRecords } from '../session/picture.ts';
import type { Session, SessionRegistry } from '../session/registry.ts';
import type { Controller } from '../toolcall/controller.ts';
import type { CallManager } from '../toolcall/manager.ts';
import { callStateOf, liveCall } from '../toolcall/record.ts';
import { version } from '../version.ts';
import { hostPicture } from './host-picture.ts';
import type {
  CallState,
  LiveCall,
  Monitor,
  ProxyMonitor,
  ProxySession,
  SessionRecord,
  Status,
} from './types.ts';

export interface StatusSources {
  readonly backend: Backend;
  readonly controller: Controller | undefined;
  readonly manager: CallManager;
  readonly sessions: SessionRegistry;
  readonly classes: SessionClasses;
  readonly paths: Paths;
  readonly config: () => Config;
  readonly host: () => HostSettings;
}

/** The daemon's state as the control socket shows it. */
export class StatusView {
  readonly #sources: StatusSources;
  readonly #startedMs = nowMs();

  constructor(sources: StatusSources) {
    this.#sources = sources;
  }

  status(): Omit<Status, 'counters'> {
    const { backend, controller, sessions, paths } = this.#sources;
    const { budgetBytes } = this.#sources.host().pool;
    const pool = controller?.pool();
    return {
      version: version(),
      pid: process.pid,
      uid: process.geteuid?.() ?? 0,
      uptimeMs: Math.round(nowMs() - this.#startedMs),
      backend: {
        mode: backend.mode,
        hooks: backend.enforcer?.hooks ?? [],
        reason: backend.reason,
        degraded: backend.degraded,
      },
      kernel: release(),
      cgroup: backend.root?.path ?? paths.cgroup ?? 'none',
      socket: this.#sources.paths.socket,
      pool: {
        budgetBytes,
        reserveBytes: this.#sources.host().reserveBytes,
        usedBytes: pool?.usedBytes ?? 0,
        roomBytes: pool?.roomBytes ?? 0,
      },
      sessions: sessions.size,
      calls: this.calls(),
    };
  }

  /** How many calls are in each state. */
  calls(): Record<CallState, number> {
    const { manager } = this.#sources;
    const counts = { waiting: manager.waiting, running: 0, throttled: 0, frozen: 0, lingering: 0 };
    for (const call of manager.calls()) counts[callStateOf(call)] += 1;
    return counts;
  }

  /**
   * @param uid whose; undefined: everybody's.
   * @param turns what the other half knows of sessions.
   */
  sessions(uid: number | undefined, turns: readonly ProxySession[]): SessionRecord[] {
    const { sessions, classes, manager, controller, backend } = this.#sources;
    const used = new Map<Session, number>();
    const frozen = new Map<Session, number>();
    for (const call of manager.calls()) {
      const { session } = call;
      used.set(session, (used.get(session) ?? 0) + (controller?.usageBytes(call) ?? 0));
      const isFrozen = call.phase === 'live' && call.frozenSinceMs !== undefined;
      if (isFrozen) frozen.set(session, (frozen.get(session) ?? 0) + 1);
    }
    const own = [...sessions.all()]
      .filter((session) => uid === undefined || session.uid === uid)
      .map((session) => ({
        id: session.id,
        uid: session.uid,
        agent: session.agent,
        cgroup: manager.directoriesOf(session)[0] ?? `${backend.root?.path ?? ''}/${session.name}`,
        class: classes.of(session.uid, session.id) ?? null,
        startedAtMs: session.startedAtMs,
        lastActiveMs: session.lastActiveMs,
        liveCalls: session.liveCalls,
        frozenCalls: frozen.get(session) ?? 0,
        finishedCalls: session.finishedCalls,
        usedBytes: used.get(session) ?? 0,
      }));
    return sessionRecords(own, turns, nowMs());
  }

  /** @param uid whose; undefined: everybody's. @param proxy what the other half says. */
  monitor(uid: number | undefined, proxy: ProxyMonitor | null): Monitor {
    const { pool, calls } = this.status();
    return {
      ...hostPicture(),
      pool,
      calls,
      sessions: this.sessions(uid, proxy?.sessions ?? []),
      liveCalls: this.liveCalls(uid, undefined),
      proxy,
    };
  }

  /** @param uid whose; undefined: everybody's. */
  liveCalls(uid: number | undefined, sessionId: string | undefined): LiveCall[] {
    const { manager, controller, backend } = this.#sources;
    const { enforcer } = backend;
    if (controller === undefined || enforcer === undefined) return [];
    return [...manager.calls()]
      .filter((call) => uid === undefined || call.session.uid === uid)
      .filter((call) => sessionId === undefined || call.session.id === sessionId)
      .flatMap((call) => {
        try {
          return [liveCall(call, enforcer, controller.usageBytes(call), nowMs())];
        } catch {
          return []; // its cgroup was removed under us: it ends at this moment
        }
      });
  }
}
