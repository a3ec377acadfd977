// SPDX-License-Identifier: Apache-2.0
import type { Log } from '../log.ts';
import type { Declared, Limits } from '../policy/limits.ts';
import type { Call } from './call.ts';
import { applyFiles, weightFiles } from './limit-files.ts';
import { saveOrLog } from './saved-state.ts';

/**
 * Gives calls of a session the class and the weights that it has shown.
 * @param wantedOf what a call of which so much was declared would get now.
 * @returns how many have others now.
 */
export function reclassAll(
  calls: Iterable<Call>,
  wantedOf: (declared: Declared) => Limits,
  log: Log,
): number {
  let changed = 0;
  for (const call of calls) {
    if (call.declared === null) continue;
    try {
      if (!reclass(call, wantedOf(call.declared), call.sessionCgroup.root.controllers)) continue;
      changed += 1;
      call.sessionCgroup.guarantee(call.limits);
      saveOrLog(call, log);
    } catch (error) {
      log.error({ err: error, call: call.id }, 'class of call not changed');
    }
  }
  return changed;
}

/**
 * Gives a call that runs the class and the weights that a new one like it would get. Its other limits stay as it was
 * promised them: memory.max below the usage would kill it.
 * @returns whether it has others now.
 * @throws the kernel's error, with path and errno.
 */
function reclass(call: Call, wanted: Limits, controllers: ReadonlySet<string>): boolean {
  const { class: callClass, cpuWeight, ioWeight } = wanted;
  const { limits } = call;
  if (limits.class === callClass && limits.cpuWeight === cpuWeight && limits.ioWeight === ioWeight)
    return false;
  const changed = { ...limits, class: callClass, cpuWeight, ioWeight };
  applyFiles(call.cgroup, weightFiles(changed, controllers));
  call.limits = changed;
  return true;
}
