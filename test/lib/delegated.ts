// SPDX-License-Identifier: Apache-2.0
import { chownSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { removeCgroup } from './cgroups.ts';

/** What systemd gives to the user of a cgroup with Delegate=yes, beside the directory. */
const DELEGATED = ['cgroup.procs', 'cgroup.subtree_control', 'cgroup.threads'];

let counter = 0;

/** A part of the hierarchy that was delegated to an ordinary user, as that of user@UID.service is. */
export class Delegated {
  readonly uid: number;
  readonly path = `/sys/fs/cgroup/user-${process.pid}-${counter++}`;

  constructor(uid = 1000) {
    this.uid = uid;
    this.#make(this.path);
    writeFileSync(join(this.path, 'cgroup.subtree_control'), '+memory +pids +cpu');
    this.#make(join(this.path, 'service'));
    this.#make(join(this.path, 'agent'));
  }

  /** Where a daemon that was started by `in('service')` puts calls. */
  get calls(): string {
    return join(this.path, 'service/calls');
  }

  /**
   * What to put before a command so that it runs as the user, in a cgroup below. A service that has run
   * there has left a leaf, in which the next has to start, as with DelegateSubgroup=.
   */
  in(name: 'service' | 'agent'): string[] {
    const leaf = join(this.path, name, 'agentrmd');
    return asUser(this.uid, existsSync(leaf) ? leaf : join(this.path, name));
  }

  /** Kills and removes everything in it. */
  close(): Promise<void> {
    return removeCgroup(this.path);
  }

  #make(path: string): void {
    mkdirSync(path);
    for (const entry of ['.', ...DELEGATED]) chownSync(join(path, entry), this.uid, this.uid);
  }
}

/** What to put before a command so that it runs as a user, in that cgroup. */
export function asUser(uid: number, cgroup: string): string[] {
  const become = `setpriv --reuid ${uid} --regid ${uid} --clear-groups`;
  return ['/bin/sh', '-c', `echo $$ >"$0/cgroup.procs" && exec ${become} "$@"`, cgroup];
}
