// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { Decision } from '../control/types.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import type { ProcessId } from '../kernel/proc.ts';
import type { KillCode } from '../policy/decide.ts';
import type { Declared, Limits } from '../policy/limits.ts';
import type { Lines } from '../policy/lines.ts';
import type { Session } from '../session/registry.ts';
import type { Origin } from './learning.ts';
import type { SessionCgroup } from './session-cgroup.ts';

/**
 * Decisions that are kept of one call. A call that is lent to in steps makes a few dozen; one that
 * is frozen and thawed for hours must not grow the daemon.
 */
const MAX_DECISIONS = 128;

export interface CallInit {
  readonly session: Session;
  readonly sessionCgroup: SessionCgroup;
  readonly cgroup: Cgroup;
  /** Of the cgroup, as in the `0::` line of /proc/PID/cgroup. */
  readonly procPath: string;
  readonly limits: Limits;
  readonly declared?: Declared;
  readonly lines: Lines;
  readonly ceilingBytes: number;
  /** As much of the command as may be kept. */
  readonly command: string;
  readonly agent: string | null;
  readonly hugePages: boolean;
  readonly wrapper: ProcessId;
  readonly admissionWaitMs: number;
  readonly startedAtMs?: number;
}

/** One Bash command of an agent with all its descendants: its cgroup, its limits, what was decided. */
export class Call {
  readonly session: Session;
  readonly sessionCgroup: SessionCgroup;
  readonly cgroup: Cgroup;
  readonly procPath: string;
  /** What it declares; its weights change with the class of its session. */
  limits: Limits;
  /** Who said what of it; null: of a call that an older daemon left, nobody knows any more. */
  readonly declared: Declared | null;
  readonly ceilingBytes: number;
  readonly command: string;
  readonly agent: string | null;
  readonly hugePages: boolean;
  readonly wrapper: ProcessId;
  readonly admissionWaitMs: number;
  /** Milliseconds of nowMs(), after admission. */
  readonly startedAtMs: number;
  readonly decisions: Decision[] = [];
  /** Of the wrapper, nearest first; read after the answer has gone out. */
  ancestors: readonly ProcessId[] = [];
  /** The process that runs it, as far as that can be told; see agent.ts. */
  agentProcess: ProcessId | null = null;
  /** By what runs of its command are known again; see learning.ts. */
  origin: Origin | null = null;
  /** By which a hook of its agent finds what there is to tell of it; see feedback.ts. */
  feedbackKey: string | undefined;
  /** What the kernel enforces now; moves when memory is lent and given back. */
  lines: Lines;
  /** Counted up at each thaw, so that the next stop is news again. */
  cycle = 1;
  phase: 'live' | 'ending' | 'lingering' | 'gone' = 'live';
  frozenSinceMs: number | undefined;
  /** Whether one of its own lines froze it, or it makes room for others; while it is frozen. */
  frozenFor: 'line' | 'pool' | undefined;
  /** It has been frozen for others. */
  madeRoom = false;
  /** Usage of all calls together over which it makes room for others; 0: never. */
  poolLineBytes = 0;
  /** Where the kernel stops it for that, which is above for one that holds still; 0: never. */
  chargeLineBytes = 0;
  /** Until when it may go on, whoever else waits. */
  passUntilMs = 0;
  /** Up to which usage of all calls together, if the kernel stops at the charge. */
  passLineBytes = Infinity;
  /** What it held at the controller's last look. */
  usageAtTickBytes = 0;
  /** When its freeze, or the last one, began: with the first stop of a task by BPF, if there was one. Of CLOCK_MONOTONIC. */
  stoppedAtNs = 0n;
  /** Since when it is held to its lines here, of CLOCK_MONOTONIC. */
  heldSinceNs = 0n;
  throttledSinceMs: number | undefined;
  lastPressedMs = 0;
  /** User time of its tasks at the last sample, while it is throttled, and their share of one CPU since the one before. */
  cpuSample: { readonly userMs: number; readonly atMs: number; readonly userPercent: number } | undefined;
  killCode: KillCode | undefined;
  killedAtMs: number | undefined;
  /** With which its first process may ask to be moved into its cgroup, once. */
  token: string | undefined;
  /** memory.high is being lowered in the thread pool; nothing else may move the lines meanwhile. */
  givingBack = false;
  #frozenMs = 0;

  constructor(init: CallInit) {
    this.session = init.session;
    this.sessionCgroup = init.sessionCgroup;
    this.cgroup = init.cgroup;
    this.procPath = init.procPath;
    this.limits = init.limits;
    this.declared = init.declared ?? null;
    this.lines = init.lines;
    this.ceilingBytes = init.ceilingBytes;
    this.command = init.command;
    this.agent = init.agent;
    this.hugePages = init.hugePages;
    this.wrapper = init.wrapper;
    this.admissionWaitMs = init.admissionWaitMs;
    this.startedAtMs = init.startedAtMs ?? nowMs();
  }

  /** The name of its cgroup. */
  get id(): string {
    return this.cgroup.name;
  }

  /** Time frozen so far, the freeze that is under way included. */
  frozenMs(nowMs: number): number {
    return this.#frozenMs + (this.frozenSinceMs === undefined ? 0 : nowMs - this.frozenSinceMs);
  }

  /** Ends the freeze that is under way. */
  countFreeze(nowMs: number): void {
    this.#frozenMs = this.frozenMs(nowMs);
    this.frozenSinceMs = undefined;
    this.frozenFor = undefined;
  }

  /** Puts back what was counted before a restart of the daemon. */
  restoreFrozenMs(frozenMs: number): void {
    this.#frozenMs = frozenMs;
  }

  record(decision: Omit<Decision, 'atMs'>, nowMs: number): void {
    // The first ones tell how it began and the last ones how it ended; the middle repeats itself.
    if (this.decisions.length >= MAX_DECISIONS) this.decisions.splice(MAX_DECISIONS / 2, 1);
    this.decisions.push({ atMs: Math.max(0, Math.round(nowMs - this.startedAtMs)), ...decision });
  }
}

/** What a killed call holds comes back within this time: a GiB in about 100 ms. If not, a task of it is stuck in the kernel. */
const DYING_MS = 10_000;

/** Whether a call was killed and gives its memory back. */
export function isDying({ killedAtMs }: Pick<Call, 'killedAtMs'>, nowMs: number): boolean {
  return killedAtMs !== undefined && nowMs - killedAtMs < DYING_MS;
}

/** Whether a cgroup is that of a call or below it. @param path as in the `0::` line of /proc/PID/cgroup. */
export function isWithin({ procPath }: Pick<Call, 'procPath'>, path: string): boolean {
  return path === procPath || path.startsWith(`${procPath}/`);
}
