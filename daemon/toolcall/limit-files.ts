// SPDX-License-Identifier: Apache-2.0
import { errnoOf } from '../errors.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import type { Limits } from '../policy/limits.ts';
import type { Lines } from '../policy/lines.ts';
import { IDLE_WEIGHT } from './intent.ts';

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
  entries.push(...weightFiles(limits, controllers));
  if (controllers.has('cpu')) {
    const { quotaUs, periodUs } = limits.cpuMax;
    entries.push({ file: files.cpuMax, value: `${cgroupNumber(quotaUs)} ${periodUs}`, optional: true });
  }
  return entries;
}

/** Those of a class, which can change while a call runs. */
export function weightFiles(
  { cpuWeight, ioWeight }: Pick<Limits, 'cpuWeight' | 'ioWeight'>,
  controllers: ReadonlySet<string>,
): LimitFile[] {
  const entries: LimitFile[] = [];
  if (controllers.has('cpu')) {
    const idle = cpuWeight === IDLE_WEIGHT;
    // First: an idle cgroup takes no weight (EINVAL).
    entries.push({ file: files.cpuIdle, value: idle ? '1' : '0', optional: false });
    if (!idle) entries.push({ file: files.cpuWeight, value: String(cpuWeight), optional: false });
  }
  // Absent where neither BFQ nor iocost is built in.
  if (controllers.has('io')) entries.push({ file: files.ioWeight, value: String(ioWeight), optional: true });
  return entries;
}

/** @throws the kernel's error, with path and errno. */
export function applyFiles(cgroup: Cgroup, entries: readonly LimitFile[]): void {
  for (const { file, value, optional } of entries) {
    try {
      cgroup.write(file, value);
    } catch (error) {
      // memory.swap.max is absent without CONFIG_SWAP, io.weight without an I/O policy that has it.
      if (!(optional && errnoOf(error) === 'ENOENT')) throw error;
    }
  }
}
