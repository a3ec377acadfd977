// SPDX-License-Identifier: Apache-2.0
import { isSameProcess, type ProcessId, type ProcessStat } from '../kernel/proc.ts';
import type { Call } from './call.ts';

// Between an agent and the wrapper stand shells, and a shell that started its command in the background
// ends before it.
const shells = new Set(['sh', 'bash', 'dash', 'zsh', 'ksh', 'mksh', 'fish', 'ash', 'busybox']);

/**
 * The process that runs a call: when it ends, nobody is left who asked for the call.
 *
 * An agent that says which session it is stands above the shells it starts. Of a caller that says nothing
 * only its parent is looked at, so that what a user started by hand with nohup or & goes on.
 * @param ancestors of the wrapper, nearest first.
 * @param named whether the caller said which session it belongs to.
 * @returns null if it cannot be told.
 */
export function agentProcessOf(ancestors: readonly ProcessStat[], named: boolean): ProcessId | null {
  const candidates = named ? ancestors : ancestors.slice(0, 1);
  const agent = candidates.find(({ comm }) => !shells.has(comm));
  return agent === undefined ? null : { pid: agent.pid, startTicks: agent.startTicks };
}

/**
 * Notes for whom a call runs.
 * @param ancestors of the wrapper, nearest first, as many as are known: a parent that is no shell says enough.
 * @param named as for {@link agentProcessOf}.
 */
export function noteAgent(
  call: Pick<Call, 'ancestors' | 'agentProcess'>,
  ancestors: readonly ProcessStat[],
  named: boolean,
): void {
  call.ancestors = ancestors.map(({ pid, startTicks }) => ({ pid, startTicks }));
  call.agentProcess = agentProcessOf(ancestors, named);
}

/**
 * Who may own the session of a call that has ended: the agent, and what stands between it and the wrapper. Whoever
 * started the agent (a login shell, process 1) has not asked for the call, and would keep the session of an agent that
 * was killed while no daemon looked for as long as the host runs.
 * @param ancestors of the wrapper, nearest first.
 * @param agent as {@link agentProcessOf} says; null: any of them.
 */
export function ownersOf(ancestors: readonly ProcessId[], agent: ProcessId | null): readonly ProcessId[] {
  if (agent === null) return ancestors;
  const index = ancestors.findIndex((ancestor) => isSameProcess(ancestor, agent));
  return ancestors.slice(0, index + 1);
}
