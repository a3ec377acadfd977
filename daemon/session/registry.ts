// SPDX-License-Identifier: Apache-2.0

import { randomBytes } from 'node:crypto';
import { nowMs } from '../clock.ts';
import type { Native } from '../kernel/native.ts';
import type { ProcessId } from '../kernel/proc.ts';
import { ProcessEnds } from '../kernel/process-ends.ts';
import { sessionKey } from './name.ts';

/** One agent conversation, as its tool calls show it. Keyed by (uid, id), as in the core, which knows its turns. */
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
  /** Those of them whose agent has ended: they do not keep the session alive. */
  orphanedCalls: number;
  finishedCalls: number;
  lastActiveMs: number;
}

interface Owner {
  readonly id: ProcessId;
  readonly release: () => void;
}

/** The longest session id that is kept; Claude Code's are UUIDs of 36 characters. */
export const MAX_ID = 128;

/**
 * Sessions of one user that are kept while none of their calls runs. Each holds two cgroups and three
 * descriptors as long as its agent lives; more agents than this do not fit on a host at a time, but a
 * loop can make up as many names.
 */
const MAX_IDLE_PER_UID = 256;

/** The id of the session of calls that name none: as their parent is another process, so is their session. */
export function unnamedId({ pid, startTicks }: ProcessId): string {
  return `${pid}-${startTicks}`;
}

/**
 * Every session on the host, and who owns it. A session lives while it has an owner (a process outside
 * the calls that has outlived one of them) or a live call whose agent is not known to have ended.
 */
export class SessionRegistry {
  readonly #ends: ProcessEnds;
  readonly #onEnd: (session: Session) => void;
  /** Every session with its owners, by their processes. */
  readonly #owners = new Map<Session, Map<string, Owner>>();
  /** By their keys, the newest last: an earlier daemon may have left an older one with the same, about to end. */
  readonly #byKey = new Map<string, readonly Session[]>();

  /** @param onEnd called once for a session when its last owner and its last call have ended. */
  constructor(native: Native, onEnd: (session: Session) => void) {
    this.#ends = new ProcessEnds(native);
    this.#onEnd = onEnd;
  }

  /** Finds or makes the session of a call. `parent` names it when the agent does not. */
  join(uid: number, id: string | undefined, parent: ProcessId | undefined, agent: string | null): Session {
    const wanted = id?.slice(0, MAX_ID) || (parent ? unnamedId(parent) : 'unnamed');
    const key = sessionKey(uid, wanted);
    let session = this.find(key);
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
    const key = sessionKey(known.uid, known.id);
    const same = this.#byKey.get(key) ?? [];
    // It had calls below several roots.
    const there = same.find(({ name }) => name === known.name);
    if (there !== undefined) return there;
    const now = nowMs();
    const session: Session = {
      key,
      uid: known.uid,
      id: known.id,
      name: known.name,
      agent: known.agent,
      startedAtMs: known.startedAtMs ?? now,
      liveCalls: 0,
      orphanedCalls: 0,
      finishedCalls: 0,
      lastActiveMs: now,
    };
    this.#owners.set(session, new Map());
    this.#byKey.set(
      key,
      [...same, session].sort((a, b) => a.startedAtMs - b.startedAtMs),
    );
    return session;
  }

  callStarted(session: Session): void {
    session.liveCalls += 1;
  }

  /**
   * Ties a live call to the process that runs it: when that ends first, nobody will read what the call
   * prints, and it no longer keeps its session alive.
   * If it has ended already, endIfOver() is left to the caller.
   * @returns what unties it, to be called before callEnded().
   * @throws Error with errno if the process cannot be watched.
   */
  tieCall(session: Session, agent: ProcessId): () => void {
    let orphaned = false;
    const orphan = (): void => {
      orphaned = true;
      session.orphanedCalls += 1;
    };
    const stop = this.#ends.watch(agent, () => {
      orphan();
      this.endIfOver(session);
    });
    if (stop === undefined) orphan();
    return () => {
      stop?.();
      if (orphaned) session.orphanedCalls -= 1;
      orphaned = false;
    };
  }

  /**
   * A call is about to end: the nearest of the wrapper's ancestors that is still alive becomes an owner.
   * To be called while the wrapper still waits for its answer: a shell around it ends right after it.
   * @param ancestors of the wrapper, nearest first, outside of all calls.
   */
  callEnding(session: Session, ancestors: readonly ProcessId[]): void {
    // The first that can be held: one that has ended cannot.
    ancestors.some((ancestor) => this.addOwner(session, ancestor));
  }

  callEnded(session: Session): void {
    session.liveCalls -= 1;
    session.finishedCalls += 1;
    session.lastActiveMs = nowMs();
    this.endIfOver(session);
  }

  /**
   * Makes a process an owner of a session.
   * @returns whether it is one: not if it has ended, or cannot be watched.
   */
  addOwner(session: Session, id: ProcessId): boolean {
    const owners = this.#owners.get(session);
    if (owners === undefined) return false;
    const key = `${id.pid}-${id.startTicks}`;
    if (owners.has(key)) return true;
    try {
      const release = this.#ends.watch(id, () => {
        owners.delete(key);
        this.endIfOver(session);
      });
      if (release === undefined) return false;
      owners.set(key, { id, release });
      return true;
    } catch {
      // No descriptor is left: the session then ends with its last call.
      return false;
    }
  }

  owners(session: Session): ProcessId[] {
    return [...(this.#owners.get(session)?.values() ?? [])].map((owner) => owner.id);
  }

  /** Ends a session that nothing keeps alive. */
  endIfOver(session: Session): void {
    const kept = session.liveCalls > session.orphanedCalls || this.owners(session).length > 0;
    if (kept || !this.has(session)) return;
    this.#end(session);
  }

  /** @param key {@link sessionKey} */
  find(key: string): Session | undefined {
    return this.#byKey.get(key)?.at(-1);
  }

  all(): IterableIterator<Session> {
    return this.#owners.keys();
  }

  has(session: Session): boolean {
    return this.#owners.has(session);
  }

  get size(): number {
    return this.#owners.size;
  }

  close(): void {
    this.#ends.close();
    this.#owners.clear();
    this.#byKey.clear();
  }

  /** Ends the session of a user that has been idle for longest, if it has as many as it may have. */
  #makeRoom(uid: number): void {
    const idle = [...this.all()].filter((session) => session.uid === uid && session.liveCalls === 0);
    if (idle.length < MAX_IDLE_PER_UID) return;
    this.#end(
      idle.reduce((oldest, session) => (session.lastActiveMs < oldest.lastActiveMs ? session : oldest)),
    );
  }

  #end(session: Session): void {
    for (const owner of this.#owners.get(session)?.values() ?? []) owner.release();
    this.#owners.delete(session);
    const others = (this.#byKey.get(session.key) ?? []).filter((other) => other !== session);
    if (others.length > 0) this.#byKey.set(session.key, others);
    else this.#byKey.delete(session.key);
    this.#onEnd(session);
  }
}
