// SPDX-License-Identifier: Apache-2.0

import { randomBytes } from 'node:crypto';
import { closeSync } from 'node:fs';
import { nowMs } from '../clock.ts';
import type { Native, Watch } from '../kernel/native.ts';
import { isAlive, type ProcessId } from '../kernel/proc.ts';

/** One agent conversation: owns tool calls, and later turns. Keyed by (uid, id). */
export interface Session {
  readonly key: string;
  readonly uid: number;
  /** As the agent names it, or `pid-START` of the wrapper's parent for an agent that names none. */
  readonly id: string;
  /** The daemon's own name for it: the name of its cgroup. */
  readonly name: string;
  readonly startedAtMs: number;
  agent: string | null;
  /** Tool calls whose wrapper has not reported their end. */
  liveCalls: number;
  finishedCalls: number;
  lastActiveMs: number;
}

interface Owner {
  readonly id: ProcessId;
  readonly pidfd: number;
  readonly watch: Watch;
}

/** The longest session id that is kept; Claude Code's are UUIDs of 36 characters. */
const MAX_ID = 128;

/**
 * Sessions of one user that are kept while none of their calls runs. Each holds two cgroups and three
 * descriptors as long as its agent lives; more agents than this do not fit on a host at a time, but a
 * loop can make up as many names.
 */
const MAX_IDLE_PER_UID = 256;

/**
 * Every session on the host, and who owns it. A session lives while it has a live call or an owner:
 * a process outside the calls that has outlived one of its calls, held by pidfd.
 */
export class SessionRegistry {
  readonly #native: Native;
  readonly #onEnd: (session: Session) => void;
  readonly #sessions = new Map<string, Session>();
  readonly #owners = new Map<string, Map<string, Owner>>();

  /** @param onEnd called once for a session when its last owner and its last call have ended. */
  constructor(native: Native, onEnd: (session: Session) => void) {
    this.#native = native;
    this.#onEnd = onEnd;
  }

  /** Finds or makes the session of a call. `parent` names it when the agent does not. */
  join(uid: number, id: string | undefined, parent: ProcessId | undefined, agent: string | null): Session {
    const wanted = id?.slice(0, MAX_ID) || (parent ? `${parent.pid}-${parent.startTicks}` : 'unnamed');
    const key = `${uid}:${wanted}`;
    let session = this.#sessions.get(key);
    if (session === undefined) {
      this.#makeRoom(uid);
      session = this.restore({ uid, id: wanted, name: `s${randomBytes(6).toString('hex')}`, agent });
    }
    session.lastActiveMs = nowMs();
    session.agent ??= agent;
    return session;
  }

  /** Puts a session back that an earlier daemon left. */
  restore(known: {
    uid: number;
    id: string;
    name: string;
    agent: string | null;
    startedAtMs?: number;
  }): Session {
    const now = nowMs();
    const session: Session = {
      key: `${known.uid}:${known.id}`,
      uid: known.uid,
      id: known.id,
      name: known.name,
      agent: known.agent,
      startedAtMs: known.startedAtMs ?? now,
      liveCalls: 0,
      finishedCalls: 0,
      lastActiveMs: now,
    };
    this.#sessions.set(session.key, session);
    this.#owners.set(session.key, new Map());
    return session;
  }

  callStarted(session: Session): void {
    session.liveCalls += 1;
  }

  /**
   * A call has ended: the nearest of the wrapper's ancestors that is still alive becomes an owner.
   * @param ancestors of the wrapper, nearest first, outside of all calls.
   */
  callEnded(session: Session, ancestors: readonly ProcessId[]): void {
    session.liveCalls -= 1;
    session.finishedCalls += 1;
    session.lastActiveMs = nowMs();
    // The first that can be held: one that has ended cannot.
    ancestors.some((ancestor) => this.addOwner(session, ancestor));
    this.endIfOver(session);
  }

  /**
   * Makes a process an owner of a session.
   * @returns whether it is one: not if it has ended, or cannot be watched.
   */
  addOwner(session: Session, id: ProcessId): boolean {
    const owners = this.has(session) ? this.#owners.get(session.key) : undefined;
    if (owners === undefined) return false;
    const key = `${id.pid}-${id.startTicks}`;
    if (owners.has(key)) return true;
    let pidfd: number | undefined;
    try {
      pidfd = this.#native.pidfdOpen(id.pid);
      // Checked with the pidfd in hand: before, the pid could have been recycled.
      if (isAlive(id)) {
        const watch = this.#native.watch(pidfd, 'readable', () => {
          release(owner);
          owners.delete(key);
          this.endIfOver(session);
        });
        const owner: Owner = { id, pidfd, watch };
        owners.set(key, owner);
        return true;
      }
    } catch {
      // It has ended, or no descriptor is left: the session then ends with its last call.
    }
    if (pidfd !== undefined) closeSync(pidfd);
    return false;
  }

  owners(session: Session): ProcessId[] {
    return [...(this.#owners.get(session.key)?.values() ?? [])].map((owner) => owner.id);
  }

  /** Ends a session that has neither calls nor owners. */
  endIfOver(session: Session): void {
    if (!this.has(session) || session.liveCalls > 0 || this.owners(session).length > 0) return;
    this.#end(session);
  }

  all(): IterableIterator<Session> {
    return this.#sessions.values();
  }

  has(session: Session): boolean {
    return this.#sessions.get(session.key) === session;
  }

  get size(): number {
    return this.#sessions.size;
  }

  close(): void {
    for (const owners of this.#owners.values()) for (const owner of owners.values()) release(owner);
    this.#owners.clear();
    this.#sessions.clear();
  }

  /** Ends the session of a user that has been idle for longest, if it has as many as it may have. */
  #makeRoom(uid: number): void {
    const idle = [...this.#sessions.values()].filter(
      (session) => session.uid === uid && session.liveCalls === 0,
    );
    if (idle.length < MAX_IDLE_PER_UID) return;
    this.#end(
      idle.reduce((oldest, session) => (session.lastActiveMs < oldest.lastActiveMs ? session : oldest)),
    );
  }

  #end(session: Session): void {
    for (const owner of this.#owners.get(session.key)?.values() ?? []) release(owner);
    this.#owners.delete(session.key);
    this.#sessions.delete(session.key);
    this.#onEnd(session);
  }
}

function release(owner: Owner): void {
  owner.watch.close();
  closeSync(owner.pidfd);
}
