// SPDX-License-Identifier: Apache-2.0

/** The cgroup v2 file names that the daemon uses; they stand here and nowhere else. */
export const files = {
  controllers: 'cgroup.controllers',
  subtreeControl: 'cgroup.subtree_control',
  procs: 'cgroup.procs',
  events: 'cgroup.events',
  freeze: 'cgroup.freeze',
  kill: 'cgroup.kill',
  memoryCurrent: 'memory.current',
  memoryPeak: 'memory.peak',
  memoryLow: 'memory.low',
  memoryHigh: 'memory.high',
  memoryMax: 'memory.max',
  memoryOomGroup: 'memory.oom.group',
  memoryEvents: 'memory.events',
  memoryEventsLocal: 'memory.events.local',
  memoryPressure: 'memory.pressure',
  memoryStat: 'memory.stat',
  swapMax: 'memory.swap.max',
  cpuWeight: 'cpu.weight',
  cpuIdle: 'cpu.idle',
  cpuMax: 'cpu.max',
  cpuStat: 'cpu.stat',
  ioWeight: 'io.weight',
  pidsMax: 'pids.max',
  pidsCurrent: 'pids.current',
  pidsPeak: 'pids.peak',
  pidsEvents: 'pids.events',
} as const;

/**
 * The extended attribute on a call's or a session's directory that carries its state over a restart.
 * trusted.* is for root alone; a user's daemon owns its directories, and so do its calls.
 */
export const STATE_XATTR = process.geteuid?.() === 0 ? 'trusted.agentrm' : 'user.agentrm';
