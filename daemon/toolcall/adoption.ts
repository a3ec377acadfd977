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

/**
 * Takes over what an earlier daemon left: calls go on with their history, empty cgroups are removed.
 * What cannot be read is logged and left alone.
 */
export function adopt(deps: AdoptionDeps): Adopted {
  let calls = 0;
  let removed = 0;
  for (const root of deps.roots) {
    for (const sessionName of childNames(root.path)) {
      try {
        const counts = adoptSession(deps, root, sessionName);
        calls += counts.calls;
        removed += counts.removed;
      } catch (error) {
        deps.log.error({ err: error, cgroup: sessionName }, 'session not adopted');
      }
    }
  }
  return { calls, removed };
}

function adoptSession(deps: AdoptionDeps, root: CgroupRoot, sessionName: string): Adopted {
  const { sessions, manager } = deps;
  const cgroup = root.cgroup.child(sessionName);
  const saved = loadSession(cgroup);
  cgroup.close();
  let removed = 0;
  let calls = 0;
  let session: Session | undefined;
  let sessionCgroup: SessionCgroup | undefined;
  if (saved !== undefined) {
    session = sessions.restore({ ...saved, name: sessionName });
    sessionCgroup = manager.openSession(root, sessionName, saved.uid);
    for (const owner of saved.owners) sessions.addOwner(session, owner);
  }
  for (const callName of childNames(`${root.path}/${sessionName}`)) {
    const parent = sessionCgroup?.cgroup ?? root.cgroup.child(sessionName);
    const callCgroup = parent.child(callName);
    const state = loadCall(callCgroup);
    const over = state === undefined || (state.lingering && !callCgroup.populated());
    if (over || session === undefined || sessionCgroup === undefined) {
      if (removeEmpty(parent, callCgroup, deps.log)) removed += 1;
    } else {
      manager.restore(
        rebuild(state, session, sessionCgroup, callCgroup, `${root.procPath}/${sessionName}/${callName}`),
        state.lingering,
        callCgroup.read(files.freeze).trim() === '1',
      );
      calls += 1;
    }
    if (parent !== sessionCgroup?.cgroup) parent.close();
  }
  if (session !== undefined && sessionCgroup !== undefined) {
    manager.keep(sessionCgroup);
    sessions.endIfOver(session);
  } else {
    try {
      root.cgroup.removeChild(sessionName);
      removed += 1;
    } catch (error) {
      deps.log.warn({ cgroup: sessionName, reason: messageOf(error) }, 'unknown cgroup left alone');
    }
  }
  return { calls, removed };
}

function rebuild(
  saved: SavedCall,
  session: Session,
  sessionCgroup: SessionCgroup,
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

/** A spare, or a call whose end was reported. What holds processes and is not known is left alone. */
function removeEmpty(parent: Cgroup, cgroup: Cgroup, log: Log): boolean {
  try {
    parent.removeChild(cgroup.name);
    return true;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT')
      log.warn({ cgroup: cgroup.name, reason: messageOf(error) }, 'cgroup left alone');
    return false;
  } finally {
    cgroup.close();
  }
}
