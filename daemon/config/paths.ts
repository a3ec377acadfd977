// SPDX-License-Identifier: Apache-2.0
import type { Config } from './schema.ts';

/** Where a daemon of this user listens unless told otherwise; wrapper and command line look there too. */
export function defaultSocket(env: NodeJS.ProcessEnv, uid: number): string {
  if (uid === 0) return '/run/agentrm/agentrm.sock';
  return `${env.XDG_RUNTIME_DIR ?? `/run/user/${uid}`}/agentrm/agentrm.sock`;
}

function defaultStateDir(env: NodeJS.ProcessEnv, uid: number): string {
  if (uid === 0) return '/var/lib/agentrm';
  return `${env.XDG_STATE_HOME ?? `${env.HOME ?? '/tmp'}/.local/state`}/agentrm`;
}

/** Where calls of a daemon that runs as root get their cgroups unless told otherwise. */
const ROOTS_CGROUP = '/sys/fs/cgroup/agentrm';

export interface Paths {
  readonly socket: string;
  /** Null: below the cgroup that the daemon was started in. */
  readonly cgroup: string | null;
  readonly stateDir: string;
  readonly database: string;
}

/** The paths of a configuration with every `auto` filled in. */
export function pathsOf(
  config: Pick<Config, 'socket' | 'cgroup' | 'stateDir' | 'store'>,
  env: NodeJS.ProcessEnv,
  uid: number,
): Paths {
  const stateDir = config.stateDir ?? defaultStateDir(env, uid);
  return {
    socket: config.socket ?? defaultSocket(env, uid),
    cgroup: config.cgroup ?? (uid === 0 ? ROOTS_CGROUP : null),
    stateDir,
    database: config.store.path ?? `${stateDir}/agentrm.db`,
  };
}
