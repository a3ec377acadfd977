// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { pathsOf } from './config/paths.ts';
import type { Config } from './config/schema.ts';
import { type ApiSources, createApi } from './control/api.ts';
import { EventLog } from './control/events.ts';
import { createMetrics } from './control/metrics.ts';
import { isOperator } from './control/operators.ts';
import { listenForScrapes } from './control/scrape.ts';
import { assertAlone, ControlServer } from './control/server.ts';
import { StatusView } from './control/status.ts';
import { type HostedCore, hostCore } from './core/host.ts';
import { messageOf } from './errors.ts';
import { openBackend } from './kernel/backend.ts';
import { pinDirOf } from './kernel/bpf-enforcer.ts';
import { ContainerRoots } from './kernel/container-roots.ts';
import { memoryBelow } from './kernel/delegation.ts';
import { hostChecks } from './kernel/doctor.ts';
import type { EnforcerEvents } from './kernel/enforcer.ts';
import { Freezer } from './kernel/freezer.ts';
import { Guards } from './kernel/guards.ts';
import { hostMemory, hostPressure } from './kernel/host.ts';
import { native as loadNative } from './kernel/native.ts';
import type { Log } from './log.ts';
import { hostSettings } from './policy/host.ts';
import { adviceOf } from './policy/learned.ts';
import { isPoolShort } from './policy/pool-demand.ts';
import { RuntimeFiles } from './runtime-files.ts';
import { SessionClasses } from './session/classes.ts';
import { sessionName } from './session/name.ts';
import { SessionRegistry } from './session/registry.ts';
import { openStore } from './store/store.ts';
import { adopt } from './toolcall/adoption.ts';
import type { Call } from './toolcall/call.ts';
import { Controller } from './toolcall/controller.ts';
import { fedCalls, unservedCalls } from './toolcall/fed-calls.ts';
import { LearnedDefaults, observationOf } from './toolcall/learning.ts';
import { CallManager } from './toolcall/manager.ts';

/**
 * How often the main loop shows that it runs. BPF stops nothing, and the guard thaws everything, when
 * the last beat is 2 s old: several beats may be late before that.
 */
const BEAT_MS = 250;

/**
 * How often memory that malloc(3) keeps is given back. V8 compiles what is called often, and the store's thread comes
 * and goes: 600 calls left 4 to 11 MB behind. It takes 0.3 ms of the main loop.
 */
const TRIM_MS = 10_000;

/** Events after which a session's tool calls are others than before, or stand otherwise. */
const CHANGES_CALLS: ReadonlySet<string> = new Set([
  'call-start',
  'call-end',
  'freeze',
  'thaw',
  'session-start',
  'session-end',
]);

/** No user has it (uid_t's -1): whose events only those see who see all. */
const NOBODY = -1;

export interface Daemon {
  /**
   * Puts a new configuration in force for calls to come; where the daemon listens, the cgroup root and
   * the database stay.
   * @throws Error if the host cannot be looked at; the old one then stays in force.
   */
  reload(config: Config): void;
  /** A new configuration was refused: the old one stays in force. */
  reloadFailed(): void;
  /** Stops: calls are thawed, relaxed and left for the next daemon. */
  close(): Promise<void>;
}

/**
 * agentrmd without its command line: opens everything, adopts what an earlier daemon left, listens.
 * @param logLinesDropped how many lines the log has lost so far.
 * @param onUnreachable nobody can reach it any more, and another in its place might be: it is to be closed.
 * @throws AgentrmError if the addon is missing, or the socket or the cgroup is another daemon's. A host that cannot
 *   enforce is no error: its commands run unmanaged.
 */
export async function startDaemon(
  initial: Config,
  log: Log,
  logLinesDropped: () => number,
  onUnreachable: () => void,
): Promise<Daemon> {
  let config = initial;
  const native = loadNative();
  const logs = [log];
  const childLog = (component: string): Log => {
    const child = log.child({ component });
    logs.push(child);
    return child;
  };
  const paths = pathsOf(config, process.env, process.getuid?.() ?? 0);
  const runtimeDir = dirname(paths.socket);
  mkdirSync(runtimeDir, { recursive: true, mode: 0o755 });
  // Before anything is touched that a daemon which runs here depends on.
  await assertAlone(paths.socket);

  const events = new EventLog();
  // Made at the end, when there is something to tell it of.
  let core: HostedCore | undefined;
  const emit = (
    kind: string,
    about: { uid?: number; session?: string; call?: string },
    detail: object = {},
  ) => {
    const { uid, ...subject } = about;
    metrics.event(kind, detail);
    events.emit(kind, uid, { ...subject, ...detail });
    if (CHANGES_CALLS.has(kind)) core?.callsChanged();
  };
  const emitCall = (kind: string, call: Call, detail: object = {}) =>
    emit(kind, { uid: call.session.uid, session: call.session.id, call: call.id }, detail);

  const store = openStore({
    path: paths.database,
    // Beside the heartbeat: /run is in memory, and survives a daemon that does not.
    journal: `${runtimeDir}/journal`,
    keepCalls: config.store.keepCalls,
    keepShapes: config.learning.keepShapes,
    keepRuns: config.learning.keepRuns,
    log: childLog('store'),
  });
  const learned = new LearnedDefaults({
    learned: (filter) => store.learned(filter),
    settings: () => config.learning,
  });
  const sessions = new SessionRegistry(native, (session) => manager.sessionEnded(session));
  const classes = new SessionClasses();
  // The back end reports to the manager, which is made of the back end: hence the forwarding.
  const forward: EnforcerEvents = {
    stop: (event) => manager.stop(event),
    oom: (event) => manager.oom(event),
    emptied: (cgroupId) => manager.emptied(cgroupId),
  };
  const backend = openBackend({
    native,
    cgroupPath: paths.cgroup,
    pinDir: config.pinDir,
    mode: config.enforcement.mode,
    events: forward,
  });
  const { root, enforcer } = backend;
  const memory = () => (root === undefined ? hostMemory() : memoryBelow(hostMemory(), root.mount, root.path));
  const settings = (config: Config) => hostSettings(config, { memTotalBytes: memory().totalBytes });
  let host = settings(config);
  const degraded = [...backend.degraded];
  const degrade = (reason: string): void => {
    degraded.push(reason);
    log.error({ reason }, 'degraded');
    emit('degraded', {}, { error: reason });
  };
  const controller =
    enforcer &&
    root &&
    new Controller({
      native,
      root: root.cgroup,
      enforcer,
      freezer: new Freezer(native, enforcer),
      config: () => config,
      poolSettings: () => host.pool,
      hostMemory: memory,
      log: childLog('controller'),
      emit: emitCall,
    });
  const heartbeatPath = `${runtimeDir}/heartbeat`;
  const guards = new Guards({
    heartbeatPath,
    onEnded: (reason) => {
      log.error({ reason }, 'guard ended');
      emit('degraded', {}, { error: `the guard ended: ${reason}` });
    },
    onMissing: () => log.warn('no agentrm-guard: what is frozen stays frozen if the daemon dies'),
  });
  const containers =
    root === undefined
      ? undefined
      : new ContainerRoots({
          native,
          root,
          enabled: () => config.containers === 'below',
          log: childLog('containers'),
          // No program is pinned for it: its calls are polled.
          onOpened: ({ path }) => guards.start(path, `${config.pinDir}/none`),
          onClosed: ({ path }) => {
            guards.stop(path).catch((error: unknown) => log.error({ err: error }, 'guard not stopped'));
          },
        });
  const cooperative = process.geteuid?.() !== 0;
  const manager = new CallManager({
    native,
    root,
    containers,
    cooperative,
    enforcer,
    controller,
    sessions,
    classOf: (uid, id) => classes.of(uid, id),
    config: () => config,
    host: () => host,
    log: childLog('calls'),
    emit,
    onUnmanaged: (reason) => metrics.unmanaged(reason),
    onAdmitted: (waitMs) => metrics.admitted(waitMs),
    learnedHighBytes: (uid, origin) => learned.highBytes(uid, origin),
    onFinished: (record, origin) => {
      if (origin === null) {
        store.add(record);
      } else {
        const endedAt = new Date().toISOString();
        store.add(record, { ...observationOf(record), ...origin, endedAt });
        learned.ran(record.uid, origin);
      }
      metrics.finished(record);
    },
  });
  const view = new StatusView({
    backend: { ...backend, degraded },
    controller,
    manager,
    sessions,
    classes,
    paths,
    config: () => config,
    host: () => host,
  });
  const metrics = createMetrics({
    status: () => view.status(),
    enforcer: () => enforcer?.counters(),
    store: () => store.counters(),
    eventsLost: () => events.dropped,
    logLinesDropped,
    pressure: hostPressure,
  });

  const sources: ApiSources = {
    status: () => ({ ...view.status(), counters: metrics.counters() }),
    sessions: async (uid) => view.sessions(uid, (await core?.process.monitor(uid))?.sessions ?? []),
    monitor: async (uid) => view.monitor(uid, (await core?.process.monitor(uid)) ?? null),
    liveCalls: (uid, session) => view.liveCalls(uid, session),
    finishedCalls: (query, onIncomplete) => store.lines(query, onIncomplete),
    events,
    advice: async function* (uid) {
      for await (const each of store.learned(uid === undefined ? {} : { uid })) {
        const mostBytes = host.ceilingFor(each.uid).memoryMaxBytes ?? Number.POSITIVE_INFINITY;
        const advice = adviceOf(each, config.learning.leastRuns, mostBytes);
        if (advice !== null) yield advice;
      }
    },
    doctor: async () => ({ checks: await hostChecks(root === undefined ? {} : { cgroupRoot: root.path }) }),
    metrics: async () => (await metrics.text()) + ((await core?.process.metrics()) ?? ''),
    notReady: () => (backend.mode === 'none' ? (backend.reason ?? 'no enforcement') : undefined),
    isOperator,
  };
  const api = createApi(sources);
  const controlLog = childLog('control');
  const server = new ControlServer({
    path: paths.socket,
    native,
    manager,
    http: api,
    limits: () => config.connections,
    log: controlLog,
    onRefused: (reason) => {
      metrics.refused(reason);
      controlLog.debug({ reason }, 'connection dropped');
    },
  });
  await server.listen();

  const runtimeFiles = new RuntimeFiles({
    native,
    server,
    heartbeatPath,
    onRestored: (file) => {
      log.warn({ file, runtimeDir }, 'was removed, and is there again');
      emit('degraded', {}, { error: `the ${file} was removed; it is there again` });
      setFailClosed();
      store.restoreJournal();
    },
    onError: (error) => log.error({ err: error, runtimeDir }, 'socket or heartbeat was removed'),
    onLost: () => {
      log.error({ runtimeDir }, 'cannot be made here again');
      onUnreachable();
    },
  });
  const beat = () => {
    runtimeFiles.beat();
    enforcer?.beat();
  };
  beat();
  const beatTimer = setInterval(beat, BEAT_MS);
  const trimTimer = setInterval(() => native.trimMemory(), TRIM_MS);
  const setFailClosed = (): void => {
    try {
      writeFailClosed(runtimeDir, config);
    } catch (error) {
      degrade(`wrapper.failClosed is not in force: ${messageOf(error)}`);
    }
  };
  setFailClosed();

  if (root !== undefined) {
    guards.start(root.path, pinDirOf(config.pinDir, native, root));
    const roots = [root, ...(containers?.restore() ?? [])];
    const adopted = adopt({ roots, sessions, manager, log });
    if (adopted.calls > 0 || adopted.removed > 0)
      log.info({ ...adopted }, 'adopted what an earlier daemon left');
  }
  for (const reason of backend.degraded) emit('degraded', {}, { error: reason });

  core = hostCore({
    config,
    stateDir: paths.stateDir,
    log: childLog('core'),
    pressure: () => ({
      memory: (hostPressure('memory')?.someAvg10 ?? 0) / 100,
      poolShort: isPoolShort({
        roomBytes: controller?.pool().roomBytes ?? Number.POSITIVE_INFINITY,
        waitingCalls: manager.waiting,
        unservedCalls: unservedCalls(manager.calls()),
      }),
    }),
    calls: () => fedCalls(manager.calls()),
    sessions: () => [...sessions.all()].map(({ key }) => key),
    onClass: (key, sessionClass) => {
      if (classes.set(key, sessionClass)) manager.reclass(key, sessionClass);
    },
    onEvent: (kind, key, detail) => {
      const { uid, id } = sessionName(key);
      // Of nobody known: for those who see all.
      emit(kind, { uid: uid ?? NOBODY, session: id }, detail);
    },
    // No part of enforcement: `agentrm status` does not call the host degraded for it.
    onDown: (reason) => emit('core-down', {}, { error: reason }),
  });

  const scrapes = createApi(sources);
  const { listen } = config.metrics;
  if (listen !== null) {
    await listenForScrapes(scrapes, listen).catch((error: unknown) =>
      degrade(`no metrics on TCP: ${messageOf(error)}`),
    );
  }
  log.info(
    { mode: backend.mode, hooks: enforcer?.hooks, reason: backend.reason, socket: paths.socket },
    'ready',
  );
  native.notify(`READY=1\nSTATUS=${backend.mode} enforcement`);

  return {
    reload(next) {
      host = settings(next);
      if (core === undefined && config.proxy.listen === null && next.proxy.listen !== null) {
        log.warn({ setting: 'proxy.listen' }, 'needs a restart');
      }
      core?.reload(next);
      config = next;
      // A child keeps the level that its parent had when it was made.
      for (const each of logs) each.level = next.log.level;
      setFailClosed();
      metrics.reloaded(true);
      emit('reload', {});
    },
    reloadFailed() {
      metrics.reloaded(false);
    },
    async close() {
      native.notify('STOPPING=1');
      // Turns may take their time to end; until they have, calls are looked after as ever.
      await core?.close();
      await server.close();
      api.close();
      scrapes.closeAllConnections();
      scrapes.close();
      clearInterval(beatTimer);
      runtimeFiles.close();
      clearInterval(trimTimer);
      manager.close();
      // Without those that were dying, which it has removed.
      const idle = controller === undefined || controller.size === 0;
      controller?.close();
      sessions.close();
      await guards.close();
      // With calls alive the kernel side stays for the next daemon; without a heartbeat it only counts.
      enforcer?.close(idle);
      containers?.close();
      root?.cgroup.close();
      learned.close();
      await store.close();
    },
  };
}

/** The wrapper looks for this file when no daemon answers: then nobody else could tell it. */
function writeFailClosed(runtimeDir: string, config: Config): void {
  const path = `${runtimeDir}/fail-closed`;
  if (config.wrapper.failClosed) writeFileSync(path, '');
  else rmSync(path, { force: true });
}
