// SPDX-License-Identifier: Apache-2.0
import type { Limits } from '../policy/limits.ts';
import type { Call } from './call.ts';
import { applyFiles, weightFiles } from './limit-files.ts';

/**
 * Gives a call that runs the class and the weights that a new one like it would get. Its other limits stay as it was
 * promised them: memory.max below the usage would kill it.
 * @returns whether it has others now.
 * @throws the kernel's error, with path and errno.
 */
export function reclass(call: Call, wanted: Limits, controllers: ReadonlySet<string>): boolean {
  const { class: callClass, cpuWeight, ioWeight } = wanted;
  const { limits } = call;
  if (limits.class === callClass && limits.cpuWeight === cpuWeight && limits.ioWeight === ioWeight)
    return false;
  const changed = { ...limits, class: callClass, cpuWeight, ioWeight };
  applyFiles(call.cgroup, weightFiles(changed, controllers));
  call.limits = changed;
  return true;
}
