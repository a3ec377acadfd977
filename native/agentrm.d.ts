// SPDX-License-Identifier: Apache-2.0
/**
 * Typed view of `dist/agentrm.node`: what the daemon needs from the kernel and Node does not offer.
 *
 * Unless said otherwise a failing system call throws an `Error` shaped like Node's own: `code` ('ENOENT'), `errno`
 * (negative), `syscall` ('openat'), and where they make sense `path` and `value` (what was being written). A wrong
 * argument throws a `TypeError` with code 'ERR_INVALID_ARG_TYPE' or 'ERR_INVALID_ARG_VALUE'.
 *
 * File descriptors are plain numbers, always close-on-exec, and belong to the caller: close them with `fs.closeSync`.
 * Cgroup ids and byte counts are numbers (below 2^53), points in time are nanoseconds of CLOCK_MONOTONIC as bigint.
 */

/** A running watch. It keeps the event loop alive until it is closed. */
export interface Watch {
  /** Stops the watch; the callback is never called afterwards. Idempotent. Close the watch before its descriptor. */
  close(): void;
}

/** Who is at the other end of a unix socket, as the kernel recorded it at connect(2). */
export interface PeerCred {
  pid: number;
  uid: number;
  gid: number;
  /** A pidfd of exactly that process, or -1: it has gone (never the fd of a process that got the number later). */
  pidfd: number;
}

/** The file through which other processes see that the daemon's main loop runs. */
export interface Heartbeat {
  /** Stores CLOCK_MONOTONIC in nanoseconds (u64, little endian). No system call. No effect after close. */
  beat(): void;
  /** Unmaps the file; it stays on disk with its last value. Idempotent. */
  close(): void;
}

/** What this kernel offers to the enforcing program. */
export interface BpfProbe {
  /** /sys/kernel/btf/vmlinux is there. */
  btf: boolean;
  /** Whether the kernel has the function behind each hook, keyed by hook name. */
  hooks: Record<string, boolean>;
  /** Why BPF cannot be used at all; absent when it can. */
  reason?: string;
}

/** The names that `openBpf` accepts in `hooks`, best first. */
export type EnforcingHook =
  | 'kprobe/schedule_timeout_killable'
  | 'fexit/reclaim_high'
  | 'kretprobe/reclaim_high'
  | 'fentry/try_charge_memcg';

export interface BpfOptions {
  /** Path of agentrm.bpf.o. */
  object: string;
  /** Directory on a bpffs, made if missing. Maps and links found in it are adopted. */
  pinDir: string;
  /** Inode of the cgroup below which the calls live. */
  rootCgroupId: number;
  /** Depth of a call's cgroup counted from the top of the hierarchy (the top itself is 0). */
  callLevel: number;
  /** Enforcing hooks to attach, see EnforcingHook. Default: the best that this kernel has. */
  hooks?: string[];
  /** Called with at most 256 events at a time, on the event loop of the thread that opened. */
  events: (events: BpfEvent[]) => void;
}

export interface BpfEvent {
  /** stop: first stop of a cycle; oom: the kernel chose a victim; emptied: the call's last process has gone. */
  kind: 'stop' | 'oom' | 'emptied';
  /** The call's cgroup, also when it happened in a cgroup below it. */
  cgroupId: number;
  /** Process (tgid) that was stopped or killed; 0 for emptied. */
  pid: number;
  comm: string;
  /** memory.current of the call when it happened; 0 if unknown. */
  usageBytes: number;
  /** What a stop was for: over the freeze line, or throttle budget used up. Empty for other kinds. */
  reason: 'line' | 'budget-time' | 'budget-events' | 'pool' | '';
  /** Whether SIGSTOP was sent; false for a traced task and one outside its parent's process group. */
  signalled: boolean;
  timeNs: bigint;
}

export interface Policy {
  freezeLineBytes: number;
  /** Usage of the root over which the call is stopped while it charges in vain; 0: never. */
  poolLineBytes: number;
  /** Time that the call's tasks may spend in the throttle within `windowMs`, summed over tasks; 0: no such budget. */
  budgetMs: number;
  /** Throttle sleeps within `windowMs`; 0: no such budget. */
  budgetEvents: number;
  windowMs: number;
  /** Bit 0: enforce. Without it only statistics are kept. */
  flags: number;
  /** Add 1 at each thaw: the next stop then sends a new event, and the budget starts anew. */
  cycle: number;
}

export interface CallStats {
  /** Times a task of the call came to the enforcing hook over memory.high. */
  highEvents: number;
  /** Of these, how often reclaim had not got 32 pages more than were needed again since the last time. */
  failedReclaims: number;
  /** Pages of program text and mapped files that reclaim had taken and that were needed again. */
  refaults: number;
  /** Penalty that the kernel imposed, summed over tasks. A task that is stopped meanwhile still serves it. */
  throttledMs: number;
  /** Times that the program wanted a task stopped. */
  stops: number;
  usageAtStopBytes: number;
  /** First stop of the call, 0n if none. */
  firstStopNs: bigint;
  forks: number;
  execs: number;
  /** Processes (thread group leaders), not threads, that have exited. */
  exits: number;
  oomKills: number;
}

/** Since the maps were made, except recursionMisses: since this process loaded the programs. */
export interface BpfCounters {
  /** Events that found the ring buffer full. */
  eventsDropped: number;
  /** Times that the kernel skipped a program because it was running on that CPU already. */
  recursionMisses: number;
  /** Stops that the kernel refused to signal. */
  sendSignalErrors: number;
  /** Stops that are in effect but for which the table had no room. */
  stopsUnrecorded: number;
  /** Calls that the sampler could not take: no slot, or no timer (6.18+ on a CPU without cmpxchg16b). */
  samplerErrors: number;
}

export interface Bpf {
  /** True if maps of an earlier process were found and kept. */
  readonly adopted: boolean;
  /** Enforcing hooks that are attached. */
  readonly hooks: string[];
  setPolicy(cgroupId: number, policy: Policy): void;
  /** Forgets the call: policy, statistics, stops and its sampler entry. Unknown ids are no error. */
  deletePolicy(cgroupId: number): void;
  /** Null if nothing was recorded and no policy is set. */
  stats(cgroupId: number): CallStats | null;
  /**
   * Stops of processes of the call that are in effect, the program's own (`byBpf`, from the moment the signal is sent)
   * and other people's. SIGCONT and exit remove an entry by themselves.
   */
  stops(cgroupId: number): { tgid: number; timeNs: bigint; byBpf: boolean }[];
  /** Forgets them. Before a thaw, not after it: what stops then belongs to the next cycle and has to be continued too. */
  clearStops(cgroupId: number): void;
  /** Keeps enforcement on for another 2 s. No system call. */
  beat(): void;
  /** Starts the sampler and registers cgroups that existed before. */
  samplerStart(): void;
  /**
   * Newest sample of memory.current in bytes: about 1 ms old at most for a call near its freeze line, 16 ms for one
   * that cannot reach it sooner; -1 if the call is not sampled. No system call.
   */
  usage(cgroupId: number): number;
  /** Things that should stay 0 and must be seen if they don't. */
  counters(): BpfCounters;
  /** verifiedInsns and runCount are 0 where the kernel does not say (runCount needs kernel.bpf_stats_enabled). */
  programs(): { name: string; type: string; attached: boolean; verifiedInsns: number; runCount: number }[];
  /** Stops delivery of events. What is pinned stays and goes on enforcing while the heartbeat is fresh. Idempotent. */
  close(): void;
  /** Detaches everything and removes it from the bpffs. */
  unpin(): void;
}

export interface Native {
  /**
   * Credentials of the peer of a connected unix socket, with a pidfd. Linux 6.5+ answers with SO_PEERPIDFD; before,
   * the pid is opened and kept only if uid and start time show that it is still the process that connected.
   */
  peerCred(fd: number): PeerCred;
  /** One sendmsg(2) with `data` (not empty) and `fds` as SCM_RIGHTS; never blocks (EAGAIN), never raises SIGPIPE. */
  sendFds(sock: number, data: string, fds: number[]): void;
  /** ESRCH if there is no such process. */
  pidfdOpen(pid: number): number;
  /** Signal 0 only checks. ESRCH if the process has gone. */
  pidfdSendSignal(pidfd: number, signal: number): void;
  /**
   * The user, and the cgroup it was made in (0: not known), of the TCP socket of this network namespace that has these ends (NETLINK_SOCK_DIAG): a lookup, not a walk
   * through all sockets; never blocks. Null if there is none, or it is closed; also where the kernel has no module for
   * it. Throws for addresses that are none or of two families, and where netlink is refused.
   */
  tcpOwner(
    address: string,
    port: number,
    peerAddress: string,
    peerPort: number,
  ): { uid: number; cgroupId: number } | null;
  /**
   * Calls back whenever the descriptor is readable (level triggered: read until EAGAIN) or has priority data (cgroup
   * event files and pressure triggers: reported once a change, the watch reads the file itself to re-arm it). When
   * the file's cgroup is removed the callback comes once more and the watch ends.
   */
  watch(fd: number, events: 'readable' | 'priority', callback: () => void): Watch;
  /** O_RDONLY|O_DIRECTORY|O_CLOEXEC. */
  openDir(path: string): number;
  /** The same below `dir`. `name` in this and all calls below is one path component, not followed if a symlink. */
  openDirAt(dir: number, name: string): number;
  /** mkdirat(2) mode 0755, opened; `id` is its inode, which for a cgroup is the cgroup id. */
  mkdirAt(dir: number, name: string): { fd: number; id: number };
  inode(fd: number): number;
  /** flock(2), exclusive, until the descriptor is closed or its process ends. False: another opening of the file has it. */
  tryLock(fd: number): boolean;
  rmdirAt(dir: number, name: string): void;
  /** O_RDONLY or, if `write`, O_WRONLY. Never creates. */
  openAt(dir: number, name: string, write: boolean): number;
  /** The whole file as UTF-8, at most 1 MiB (EFBIG beyond). */
  readAt(dir: number, name: string): string;
  /** One write(2) of the whole value. Never creates the file, never truncates it. */
  writeAt(dir: number, name: string, value: string): void;
  /**
   * `writeAt` on the thread pool, for files whose write takes long (lowering memory.high or memory.max reclaims in
   * the writer). The file is opened before the call returns, so `dir` may be closed at once.
   */
  writeAtAsync(dir: number, name: string, value: string): Promise<void>;
  /**
   * Reads a number from the start of each file. `out[i]` is -1 where that fails, Infinity for "max". The arrays have
   * the same length.
   */
  readNumbers(fds: Int32Array, out: Float64Array): void;
  /** On the directory itself. */
  setXattr(dir: number, name: string, value: string): void;
  /** Null if there is no such attribute. */
  getXattr(dir: number, name: string): string | null;
  /** Whether the path is on a cgroup v2 mount. */
  isCgroup2(path: string): boolean;
  /** sd_notify(3): sends `state` to $NOTIFY_SOCKET (path or @abstract). False if that is unset. */
  notify(state: string): boolean;
  /**
   * Gives what malloc(3) holds and nobody uses back to the system, for all threads: V8's compilers leave megabytes.
   * False if there was nothing, or if the C library cannot (musl).
   */
  trimMemory(): boolean;
  monotonicNs(): bigint;
  /** Makes the file if missing (8 bytes, mode 0644, not through a symlink) and maps it. */
  openHeartbeat(path: string): Heartbeat;
  /** Looks, loads nothing. */
  probeBpf(): BpfProbe;
  openBpf(options: BpfOptions): Bpf;
  /** Layouts shared with the BPF object, as the compiler laid them out here: for the test that compares them. */
  abi(): { version: number; structs: Record<string, { size: number; fields: Record<string, number> }> };
}
