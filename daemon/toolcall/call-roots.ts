// SPDX-License-Identifier: Apache-2.0
import { messageOf } from '../errors.ts';
import type { ContainerRoots } from '../kernel/container-roots.ts';
import type { PeerCred } from '../kernel/native.ts';
import { cgroupPathOf } from '../kernel/proc.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import type { Emit } from './call-events.ts';

export interface CallRootsDeps {
  readonly root: CgroupRoot | undefined;
  readonly containers?: ContainerRoots | undefined;
  readonly log: Log;
  readonly emit: Emit;
}

/** Below which root a process is, or its call is to be: the daemon's own, or one in a container. */
export class CallRoots {
  readonly #deps: CallRootsDeps;

  constructor(deps: CallRootsDeps) {
    this.#deps = deps;
  }

  /** The root that a process is below: it belongs to a call then. @param path of its cgroup, as in /proc/PID/cgroup. */
  around(path: string): CgroupRoot | undefined {
    const { root, containers } = this.#deps;
    return root !== undefined && path.startsWith(`${root.procPath}/`) ? root : containers?.around(path);
  }

  /** Whether a process belongs to a call. */
  isManaged(pid: number): boolean {
    const path = cgroupPathOf(pid);
    return path !== undefined && this.around(path) !== undefined;
  }

  /** The root below the caller's container; undefined if it is in none, or in one that refuses. */
  containerOf(peer: PeerCred, path: string): CgroupRoot | undefined | Promise<CgroupRoot | undefined> {
    const found = this.#deps.containers?.of(peer.pid, path);
    if (!(found instanceof Promise)) return found;
    return found.catch((error: unknown) => {
      this.#deps.log.error({ err: error, uid: peer.uid }, 'calls not placed in their container');
      this.#deps.emit('degraded', { uid: peer.uid }, { error: messageOf(error) });
      return undefined;
    });
  }
}

/** The id of the call to which a cgroup below a root belongs. */
export function callIdIn(root: CgroupRoot, path: string): string | undefined {
  if (!path.startsWith(`${root.procPath}/`)) return undefined;
  return path.slice(root.procPath.length + 1).split('/')[1];
}
