// SPDX-License-Identifier: Apache-2.0

import type { Config } from '../config/schema.ts';
import { idsOfUser } from '../config/users.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { HostPressure, TurnClass } from '../scheduler/types.ts';
import { CallsFeed, type FedCall } from '../session/calls-feed.ts';
import { FrozenFeed } from '../session/frozen-feed.ts';
import { CoreProcess } from './process.ts';
import { reloadable } from './reload.ts';
import { StateFile } from './state-file.ts';

/** PSI is an average over 10 s; the scheduler need not know sooner. */
const PRESSURE_MS = 1_000;

/** Calls come and go in bursts: one look for all of them. */
const CHANGED_MS = 50;

export interface HostedCoreOptions {
  readonly config: Config;
  readonly stateDir: string;
  readonly log: Log;
  readonly pressure: () => HostPressure;
  readonly calls: () => Iterable<FedCall & { readonly place: number }>;
  /** Keys of sessions that live. */
  readonly sessions: () => Iterable<string>;
  /** A session has shown its class, or another one. */
  readonly onClass: (session: string, turnClass: TurnClass) => void;
  /** What users may want to know of: of this session, with these details. */
  readonly onEvent: (kind: string, session: string, detail: object) => void;
  /** The core ended, or could not be started. */
  readonly onDown: (reason: string) => void;
}

/** The core as the daemon has it: a child that runs as long as the daemon does. */
export interface HostedCore {
  readonly process: CoreProcess;
  /** Calls or sessions have come, gone, or been frozen: the core is told soon. */
  callsChanged(): void;
  /** Puts a new configuration in force as far as that can be; the log says what cannot, and why. */
  reload(config: Config): void;
  close(): Promise<void>;
}

/** @returns undefined if there is to be no proxy, or no user to run it as: root's own rights are none of its business. */
export function hostCore(options: HostedCoreOptions): HostedCore | undefined {
  const { config, stateDir, log, pressure, onDown } = options;
  const { proxy } = config;
  if (proxy.listen === null) return undefined;
  let ids: { uid: number; gid: number } | null = null;
  if (process.getuid?.() === 0) {
    try {
      ids = idsOfUser(proxy.user) ?? null;
    } catch (error) {
      log.error({ problem: messageOf(error) }, 'users cannot be read');
    }
    if (ids === null || ids.uid === 0) {
      onDown(`proxy.user ${proxy.user}: ${ids === null ? 'no such user' : 'is root'}`);
      return undefined;
    }
  }
  const state = new StateFile(stateDir, log);
  const core = new CoreProcess({
    config: proxy,
    logLevel: config.log.level,
    ids,
    state,
    log,
    onClass: options.onClass,
    // What says when and which is the daemon's to say.
    onEvent: ({ kind, session, seq: _seq, time: _time, ...detail }) => options.onEvent(kind, session, detail),
    onListening: (port) => {
      log.info({ port, corePid: core.pid }, 'proxy listens');
      feed.forget();
      frozen.forget();
      tell();
    },
    onConfigured: (problem) => {
      if (problem === null) log.info('proxy reconfigured');
      else log.error({ problem }, 'configuration of the proxy kept');
    },
    onDown: (reason) => {
      log.error({ reason }, 'core ended');
      onDown(reason);
    },
  });
  const feed = new CallsFeed({
    calls: options.calls,
    sessions: options.sessions,
    send: (message) => core.setCalls(message),
  });
  const frozen = new FrozenFeed({
    calls: options.calls,
    send: (places) => core.setFrozen(places),
  });
  const tell = (): void => {
    feed.tell();
    frozen.tell();
    try {
      core.setPressure(pressure());
    } catch (error) {
      // No descriptor is left, say. The core goes on with what it was told last.
      log.warn({ err: error }, 'pressure not known');
    }
  };
  let soon: NodeJS.Timeout | undefined;
  core.start();
  const timer = setInterval(tell, PRESSURE_MS);
  return {
    process: core,
    callsChanged() {
      soon ??= setTimeout(() => {
        soon = undefined;
        feed.tell();
        frozen.tell();
      }, CHANGED_MS).unref();
    },
    reload({ proxy: next, log: { level } }) {
      const { config, restart } = reloadable(core.config, next);
      for (const setting of restart) log.warn({ setting }, 'needs a restart');
      const onItsWay = core.configure({ config, logLevel: level });
      log.info(onItsWay ? 'the proxy is being reconfigured' : 'the proxy is reconfigured when it listens');
    },
    async close() {
      clearInterval(timer);
      clearTimeout(soon);
      await core.close();
      await state.close();
    },
  };
}
