// SPDX-License-Identifier: Apache-2.0
import { files } from '../kernel/files.ts';
import type { Limits } from '../policy/limits.ts';
import type { Lines } from '../policy/lines.ts';

export interface LimitFile {
  readonly file: string;
  readonly value: string;
  /** Some kernels do not have it; that is no error. */
  readonly optional: boolean;
}

/** A number as cgroup files want it: Infinity is `max`. */
export function cgroupNumber(value: number): string {
  return value === Number.POSITIVE_INFINITY ? 'max' : String(Math.floor(value));
}

/**
 * The files to write for a call, memory.max before memory.high so that no moment is without a fence.
 * Controllers that the tree does not have are left out; the daemon reports them as degraded once.
 */
export function limitFiles(limits: Limits, lines: Lines, controllers: ReadonlySet<string>): LimitFile[] {
  const entries: LimitFile[] = [
    { file: files.memoryMax, value: cgroupNumber(lines.memoryMaxBytes), optional: false },
    { file: files.memoryHigh, value: cgroupNumber(lines.memoryHighBytes), optional: false },
    { file: files.memoryOomGroup, value: '1', optional: false },
    // Absent without CONFIG_SWAP.
    { file: files.swapMax, value: cgroupNumber(limits.swapMaxBytes), optional: true },
  ];
  if (controllers.has('pids')) {
    entries.push({ file: files.pidsMax, value: cgroupNumber(limits.pidsMax), optional: false });
  }
  if (controllers.has('cpu')) {
    const { quotaUs, periodUs } = limits.cpuMax;
    entries.push({ file: files.cpuWeight, value: String(limits.cpuWeight), optional: false });
    entries.push({ file: files.cpuMax, value: `${cgroupNumber(quotaUs)} ${periodUs}`, optional: true });
  }
  if (controllers.has('io')) {
    // Absent where neither BFQ nor iocost is built in.
    entries.push({ file: files.ioWeight, value: String(limits.ioWeight), optional: true });
  }
  return entries;
}
