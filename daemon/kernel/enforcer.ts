// SPDX-License-Identifier: Apache-2.0
import type { Cgroup } from './cgroup.ts';

/** Where the kernel (or the poller) stops a call; see design of the freeze line in kernel-notes. */
export interface Line {
  /** The call's own memory.high: only what it waits for there is used of its budget. */
  readonly memoryHighBytes: number;
  readonly freezeLineBytes: number;
  /** 0: no budget. */
  readonly budgetMs: number;
  /** 0: no budget. */
  readonly budgetEvents: number;
  readonly windowMs: number;
  /** Usage of all calls together over which it is stopped too if it still grows. 0: never. */
  readonly poolLineBytes: number;
}

/** A call reached its freeze line, used up its throttle budget, or grew while the pool was short. */
export interface StopEvent {
  readonly cgroupId: number;
  readonly pid: number;
  readonly comm: string;
  readonly usageBytes: number;
  readonly reason: 'line' | 'budget-time' | 'budget-events' | 'pool';
  /** The kernel has already stopped the task that was charging. */
  readonly signalled: boolean;
  readonly timeNs: bigint;
}

/** The kernel's OOM killer chose a victim in a call. */
export interface OomEvent {
  readonly cgroupId: number;
  readonly pid: number;
  readonly comm: string;
}

export interface EnforcerEvents {
  stop(event: StopEvent): void;
  oom(event: OomEvent): void;
  /** The last process of a call's cgroup has gone. */
  emptied(cgroupId: number): void;
}

/** A task of a call that was stopped by a signal, as far as it is known. */
export interface StoppedTask {
  readonly tgid: number;
  readonly timeNs: bigint;
  readonly byBpf: boolean;
}

export interface ThrottleStats {
  /** How often a charge went over memory.high. */
  readonly highEvents: number;
  readonly throttledMs: number;
  /**
   * What that is: `sleeps` that tasks of the call were put to for it, summed over tasks; or, where nobody sees those,
   * the time in which some task of it was held up by `pressure` for memory: by reclaim, or for other limits too.
   */
  readonly throttledBy: 'sleeps' | 'pressure';
  readonly stops: number;
  /** When BPF stopped a task of the call for the first time, of CLOCK_MONOTONIC; 0: never. */
  readonly firstStopNs: bigint;
}

export interface EnforcerCounters {
  readonly eventsDropped: number;
  readonly recursionMisses: number;
  readonly sendSignalErrors: number;
}

/** What detects that a call is over its line: BPF in the kernel, or a poller in user space. */
export interface Enforcer {
  readonly mode: 'bpf' | 'user';
  readonly hooks: readonly string[];
  /** Begins to enforce a line, or replaces it; a new `cycle` lets the next stop be reported again. */
  set(cgroup: Cgroup, line: Line, cycle: number): void;
  forget(cgroup: Cgroup): void;
  stats(cgroup: Cgroup): ThrottleStats;
  stoppedTasks(cgroup: Cgroup): readonly StoppedTask[];
  /** Bytes charged now; where BPF samples, 1 ms old near the freeze line, 16 ms at most elsewhere. */
  usageBytes(cgroup: Cgroup): number;
  counters(): EnforcerCounters;
  /** Tells the kernel that the daemon lives; stops happen only while it does. */
  beat(): void;
  /** @param remove take the kernel side away too: nothing is left for a next daemon to adopt. */
  close(remove: boolean): void;
}
