// SPDX-License-Identifier: Apache-2.0
import type { Config } from '../config/schema.ts';
import { errnoOf, messageOf } from '../errors.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import type { Session, SessionRegistry } from '../session/registry.ts';
import type { Call } from './call.ts';
import type { Emit } from './call-events.ts';
import { Guarantees } from './guarantees.ts';
import { saveSession } from './saved-state.ts';
import { type CallLimits, SessionCgroup } from './session-cgroup.ts';

/** A killed process needs a moment to die, and may need longer in a system call. */
const RETRY_MS = 1000;

export interface SessionCgroupsDeps {
  /** The daemon's own. */
  readonly root: CgroupRoot | undefined;
  readonly sessions: Pick<SessionRegistry, 'has' | 'owners'>;
  /** Those whose processes may live. */
  readonly calls: () => Iterable<Call>;
  /** What most calls of a user get. */
  readonly usual: (uid: number) => CallLimits;
  readonly config: () => Config;
  readonly log: Log;
  readonly emit: Emit;
}

/** The cgroups of all sessions: one each, and another in each container that it runs calls in. */
export class SessionCgroups {
  readonly #deps: SessionCgroupsDeps;
  /** By their paths, as in /proc/PID/cgroup. */
  readonly #cgroups = new Map<string, SessionCgroup>();
  readonly #guarantees: Guarantees | undefined;

  constructor(deps: SessionCgroupsDeps) {
    this.#deps = deps;
    this.#guarantees =
      deps.root &&
      new Guarantees(
        deps.root.cgroup,
        () => deps.config().pool.guarantee,
        (error) => deps.log.warn({ err: error }, 'guarantee not in force'),
      );
  }

  /** The cgroup of a session, made if it is not there. It is to be kept, or closed. */
  open(root: CgroupRoot, name: string, uid: number): SessionCgroup {
    const guarantees = root === this.#deps.root ? this.#guarantees : undefined;
    return new SessionCgroup(root, name, this.#deps.usual(uid), guarantees);
  }

  keep(cgroup: SessionCgroup): void {
    this.#cgroups.set(cgroup.procPath, cgroup);
  }

  of(session: Session): SessionCgroup[] {
    return [...this.#cgroups.values()].filter(({ name }) => name === session.name);
  }

  /**
   * A cgroup for a call in that of its session; the latter is made again if it was removed under us.
   * @throws the kernel's error, with path and errno.
   */
  take(
    root: CgroupRoot,
    session: Session,
    limits: CallLimits,
  ): { sessionCgroup: SessionCgroup; cgroup: Cgroup } {
    const sessionCgroup = this.#get(root, session);
    try {
      return { sessionCgroup, cgroup: sessionCgroup.take(limits) };
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENODEV') throw error;
      this.#deps.log.warn({ session: session.id, reason: messageOf(error) }, 'cgroup of session made again');
      this.#cgroups.delete(sessionCgroup.procPath);
      sessionCgroup.close();
      const again = this.#get(root, session);
      return { sessionCgroup: again, cgroup: again.take(limits) };
    }
  }

  /** Calls have come to a session, gone from it, or changed: what it weighs against others. */
  weigh(session: Session, sessionCgroup: SessionCgroup): void {
    const living = [...this.#deps.calls()].filter((call) => call.sessionCgroup === sessionCgroup);
    try {
      if (living.length === 0) sessionCgroup.forgetWeights();
      else sessionCgroup.setWeights(mostImportant(living).limits);
    } catch (error) {
      // ENOENT, ENODEV: somebody has removed it.
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENODEV')
        this.#deps.log.error({ err: error, session: session.id }, 'weights of session not changed');
    }
  }

  /** Saves of a session what a next daemon must know. */
  save(session: Session): void {
    if (!this.#deps.sessions.has(session)) return;
    try {
      const { uid, id, agent, startedAtMs } = session;
      const owners = this.#deps.sessions.owners(session);
      for (const { cgroup } of this.of(session)) saveSession(cgroup, { uid, id, agent, startedAtMs, owners });
    } catch (error) {
      this.#deps.log.error({ err: error, session: session.id }, 'state of session not saved');
    }
  }

  removeIfOver(session: Session): void {
    if (this.#deps.sessions.has(session)) return;
    for (const call of this.#deps.calls()) if (call.session === session) return;
    for (const cgroup of this.of(session)) this.#remove(cgroup);
  }

  /** Closes them without removing: the next daemon adopts what is there. */
  close(): void {
    for (const cgroup of this.#cgroups.values()) cgroup.close();
    this.#cgroups.clear();
  }

  /** Of a session that is over: what is left in its cgroup is of no call that is known, and ends with it. */
  #remove(cgroup: SessionCgroup): void {
    if (cgroup.remove()) {
      this.#cgroups.delete(cgroup.procPath);
      return;
    }
    try {
      cgroup.cgroup.write(files.kill, '1');
      this.#deps.log.warn({ cgroup: cgroup.procPath }, 'what was left of a session killed');
    } catch (error) {
      this.#deps.log.error({ err: error, cgroup: cgroup.procPath }, 'what was left of a session not killed');
    }
    setTimeout(() => {
      // Else the daemon has stopped.
      if (this.#cgroups.get(cgroup.procPath) === cgroup) this.#remove(cgroup);
    }, RETRY_MS).unref();
  }

  #get(root: CgroupRoot, session: Session): SessionCgroup {
    let cgroup = this.#cgroups.get(`${root.procPath}/${session.name}`);
    if (cgroup === undefined) {
      cgroup = this.open(root, session.name, session.uid);
      this.keep(cgroup);
      this.save(session);
      this.#deps.emit('session-start', { session: session.id, uid: session.uid }, { agent: session.agent });
    }
    return cgroup;
  }
}

function mostImportant(calls: readonly Call[]): Call {
  return calls.reduce((best, call) => (call.limits.cpuWeight > best.limits.cpuWeight ? call : best));
}
