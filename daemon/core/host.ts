// SPDX-License-Identifier: Apache-2.0

import type { Config } from '../config/schema.ts';
import { idsOfUser } from '../config/users.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { HostPressure } from '../scheduler/types.ts';
import { CoreProcess } from './process.ts';
import { StateFile } from './state-file.ts';

/** PSI is an average over 10 s; the scheduler need not know sooner. */
const PRESSURE_MS = 1_000;

export interface HostedCoreOptions {
  readonly config: Config;
  readonly stateDir: string;
  readonly log: Log;
  readonly pressure: () => HostPressure;
  /** The core ended, or could not be started. */
  readonly onDown: (reason: string) => void;
}

/** The core as the daemon has it: a child that runs as long as the daemon does. */
export interface HostedCore {
  readonly process: CoreProcess;
  close(): Promise<void>;
}

/** @returns undefined if there is to be no proxy, or no user to run it as: root's own rights are none of its business. */
export function hostCore({
  config,
  stateDir,
  log,
  pressure,
  onDown,
}: HostedCoreOptions): HostedCore | undefined {
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
    onListening: (port) => log.info({ port, corePid: core.pid }, 'proxy listens'),
    onDown: (reason) => {
      log.error({ reason }, 'core ended');
      onDown(reason);
    },
  });
  core.start();
  const timer = setInterval(() => {
    try {
      core.setPressure(pressure());
    } catch (error) {
      // No descriptor is left, say. The core goes on with what it was told last.
      log.warn({ err: error }, 'pressure not known');
    }
  }, PRESSURE_MS);
  return {
    process: core,
    async close() {
      clearInterval(timer);
      await core.close();
      await state.close();
    },
  };
}
