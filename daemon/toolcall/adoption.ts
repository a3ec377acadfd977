// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import { errnoOf, messageOf } from '../errors.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import { ancestors, isAlive } from '../kernel/proc.ts';
import { type CgroupRoot, childNames } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import { type Session, type SessionRegistry, unnamedId } from '../session/registry.ts';
import { noteAgent } from './agent.ts';
import { Call } from './call.ts';
import type { CallManager } from './manager.ts';
import { loadCall, loadSession, type SavedCall } from './saved-state.ts';
import type { SessionCgroup } from './session-cgroup.ts';

export interface AdoptionDeps {
  /** The daemon's own, and those below containers. */
  readonly roots: readonly CgroupRoot[];
  readonly sessions: SessionRegistry;
  readonly manager: CallManager;
  readonly log: Log;
}

export interface Adopted {
  readonly calls: number;
  readonly removed: number;
}

/** A session that is known, and its cgroup below one root. */
interface Owner {
  readonly session: Session;
  readonly sessionCgroup: SessionCgroup;
}

/** What was found in one directory. */
interface Found extends Adopted {
  readonly session: Session | undefined;
  /** Cgroups that go on without the daemon. */
  readonly left: number;
}

/**
 * Takes over what an earlier daemon left: calls go on with their history, empty cgroups are removed.
 * What cannot be taken over is logged and goes on by itself, neither frozen nor throttled: nobody would decide about it.
 */
export function adopt(deps: AdoptionDeps): Adopted {
  const found: Found[] = [];
  for (const root of deps.roots) {
    for (const sessionName of childNames(root.path)) {
      try {
        found.push(adoptSession(deps, root, sessionName));
      } catch (error) {
        deps.log.error({ err: error, cgroup: sessionName }, 'session not adopted');
      }
    }
  }
  // Its end, for which all roots must be known where it may have calls, kills what is left in its cgroups.
  const inhabited = new Set(found.filter(({ left }) => left > 0).map(({ session }) => session));
  for (const { session } of found)
    if (session !== undefined && !inhabited.has(session)) deps.sessions.endIfOver(session);
  const sum = (of: 'calls' | 'removed') => found.reduce((total, each) => total + each[of], 0);
  return { calls: sum('calls'), removed: sum('removed') };
}

function adoptSession(deps: AdoptionDeps, root: CgroupRoot, sessionName: string): Found {
  const { manager, log } = deps;
  const owner = restoreSession(deps, root, sessionName);
  const parent = owner?.sessionCgroup.cgroup ?? root.cgroup.child(sessionName);
  const counts = { calls: 0, removed: 0, left: 0 };
  for (const callName of childNames(`${root.path}/${sessionName}`)) {
    try {
      const cgroup = parent.child(callName);
      const procPath = `${root.procPath}/${sessionName}/${callName}`;
      counts[adoptCall(deps, owner, parent, cgroup, procPath)] += 1;
    } catch (error) {
      log.error({ err: error, cgroup: callName }, 'cgroup left alone');
      counts.left += 1;
    }
  }
  if (owner !== undefined) {
    manager.keep(owner.sessionCgroup);
  } else {
    parent.close();
    try {
      root.cgroup.removeChild(sessionName);
      counts.removed += 1;
    } catch (error) {
      log.warn({ cgroup: sessionName, reason: messageOf(error) }, 'unknown cgroup left alone');
    }
  }
  return { ...counts, session: owner?.session };
}

/** @returns undefined if nobody knows whose it is, or it cannot be taken over. */
function restoreSession(deps: AdoptionDeps, root: CgroupRoot, name: string): Owner | undefined {
  const { sessions, manager, log } = deps;
  try {
    const cgroup = root.cgroup.child(name);
    const saved = loadSession(cgroup);
    cgroup.close();
    if (saved === undefined) return undefined;
    const sessionCgroup = manager.openSession(root, name, saved.uid);
    const session = sessions.restore({ ...saved, name });
    for (const owner of saved.owners) sessions.addOwner(session, owner);
    return { session, sessionCgroup };
  } catch (error) {
    log.error({ err: error, cgroup: name }, 'session not adopted');
    return undefined;
  }
}

/** Takes a call over, or closes its cgroup. */
function adoptCall(
  { manager, log }: AdoptionDeps,
  owner: Owner | undefined,
  parent: Cgroup,
  cgroup: Cgroup,
  procPath: string,
): 'calls' | 'removed' | 'left' {
  try {
    const state = loadCall(cgroup);
    const over = state === undefined || (state.lingering && !cgroup.populated());
    if (!over && owner !== undefined) {
      const frozen = cgroup.read(files.freeze).trim() === '1';
      manager.restore(rebuild(state, owner, cgroup, procPath), state.lingering, frozen);
      return 'calls';
    }
  } catch (error) {
    log.error({ err: error, call: cgroup.name }, 'call not adopted');
  }
  try {
    if (isRemoved(parent, cgroup.name, log)) return 'removed';
    manager.disown(cgroup, procPath);
    return 'left';
  } finally {
    cgroup.close();
  }
}

function rebuild(
  saved: SavedCall,
  { session, sessionCgroup }: Owner,
  cgroup: Cgroup,
  procPath: string,
): Call {
  const call = new Call({ ...saved, session, sessionCgroup, cgroup, procPath });
  call.ancestors = saved.ancestors;
  call.agentProcess = saved.agentProcess;
  const [parent, ...others] = saved.ancestors;
  if (saved.agentProcess === null && others.length === 0 && isAlive(saved.wrapper)) {
    // The daemon before may have died when it knew no more than that the wrapper's parent is a shell.
    const named = parent === undefined || session.id !== unnamedId(parent);
    noteAgent(call, ancestors(saved.wrapper.pid), named);
  }
  call.origin = saved.origin ?? null;
  // The daemon before may have begun a cycle more, and died before it had saved that.
  call.cycle = saved.cycle + 2;
  call.restoreFrozenMs(saved.frozenMs);
  call.lastPressedMs = nowMs();
  call.decisions.push(...saved.decisions);
  return call;
}

/** A spare goes, and a call whose end was reported; what holds processes stays. */
function isRemoved(parent: Cgroup, name: string, log: Log): boolean {
  try {
    parent.removeChild(name);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return true;
    log.warn({ cgroup: name, reason: messageOf(error) }, 'cgroup left alone');
    return false;
  }
  return true;
}
