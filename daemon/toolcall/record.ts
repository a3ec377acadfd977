// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:os';
import type { CallMemory, CallRecord, CallState, LiveCall } from '../control/types.ts';
import type { Enforcer, ThrottleStats } from '../kernel/enforcer.ts';
import { files } from '../kernel/files.ts';
import { parseFlatKeyed } from '../kernel/host.ts';
import { outcomeOf } from '../policy/decide.ts';
import { type CallFacts, type ReportSettings, reportOf } from '../policy/report.ts';
import type { Call } from './call.ts';

/** How the command ended, as its parent, the wrapper, saw it. */
export interface Ending {
  readonly code?: number | undefined;
  readonly signal?: number | undefined;
}

export interface FinishSettings extends ReportSettings {
  /** Whether processes that the command leaves behind may stay. */
  readonly leftoversKept: boolean;
}

const signalNames = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number as number, name]),
);

/**
 * What the kernel knows of a call at its end. Read while its cgroup is still there: the evidence goes
 * with it.
 */
export function finish(
  call: Call,
  ending: Ending,
  enforcer: Enforcer,
  nowMs: number,
  settings: FinishSettings,
): CallRecord {
  const { cgroup, limits } = call;
  const local = cgroup.memoryEvents();
  const all = cgroup.memoryEvents({ below: true });
  const cpu = cgroup.cpuUsage();
  const shellLived = endedByItself(ending);
  // A kill that came when the shell had ended was of what it left: not how the command ended.
  const killCode = shellLived ? null : (call.killCode ?? null);
  // What was killed as a whole leaves nothing behind, however long its last process takes to free its memory.
  const killed = call.killCode !== undefined || local.oomGroupKill > 0;
  const stats = enforcer.stats(cgroup);
  const memory: CallMemory = { ...memoryOf(call, stats, nowMs), oomKills: all.oomKill };
  const highestBytes = Math.max(
    limits.memoryHighBytes,
    ...call.decisions.map((entry) => entry.highBytes ?? 0),
  );
  const outcome = outcomeOf({ killCode, oomKills: all.oomKill });
  const durationMs = Math.max(0, Math.round(nowMs - call.startedAtMs));
  const pidsMaxHits = pidsMaxHitsOf(call);
  const facts: CallFacts = {
    limits,
    ceilingBytes: call.ceilingBytes,
    outcome,
    killCode,
    peakBytes: memory.peakBytes,
    throttledMs: memory.throttledMs,
    throttledBy: stats.throttledBy,
    highEvents: local.high,
    frozenMs: memory.frozenMs,
    // Here, so that the line and the figures beside it are rounded alike.
    admissionWaitMs: Math.round(call.admissionWaitMs),
    durationMs,
    oomEvents: local.oom,
    oomEventsBelow: all.oom - local.oom,
    oomKills: all.oomKill,
    shellLived,
    pidsMaxHits,
    pidsMaxOwn: pidsMaxHits > 0 && pidsPeakOf(call) >= limits.pidsMax,
    poolShort: call.madeRoom || call.decisions.some(({ action }) => action === 'wait'),
    lentBytes: Number.isFinite(highestBytes) ? highestBytes - limits.memoryHighBytes : 0,
    leftovers: killed ? 0 : leftoversOf(call),
    leftoversKept: settings.leftoversKept,
  };
  return {
    ...identity(call),
    ...endOf(ending),
    durationMs,
    outcome,
    memory,
    cpu,
    decisions: call.decisions,
    report: reportOf(facts, settings),
  };
}

/** Whether the shell's end was its own, or at least not SIGKILL, by which the kernel and AgentRM kill. */
function endedByItself({ code, signal }: Ending): boolean {
  return code !== undefined || (signal !== undefined && signal !== constants.signals.SIGKILL);
}

/** Processes, not tasks: a server with a dozen threads is one. */
function leftoversOf({ cgroup }: Call): number {
  if (!cgroup.populated()) return 0;
  // None of its own: they are in cgroups that the command has made.
  return Math.max(1, cgroup.procs().length);
}

/** The record of a call whose cgroup was removed before its end, as a container's runtime does: all but the figures. */
export function finishWithoutFigures(call: Call, ending: Ending, nowMs: number): CallRecord {
  return {
    ...identity(call),
    ...endOf(ending),
    durationMs: Math.max(0, Math.round(nowMs - call.startedAtMs)),
    outcome: outcomeOf({ killCode: call.killCode ?? null, oomKills: 0 }),
    memory: {
      highBytes: finiteOrNull(call.limits.memoryHighBytes),
      maxBytes: finiteOrNull(call.limits.memoryMaxBytes),
      peakBytes: 0,
      throttledMs: 0,
      frozenMs: Math.round(call.frozenMs(nowMs)),
      highEvents: 0,
      oomKills: 0,
    },
    cpu: { userMs: 0, systemMs: 0 },
    decisions: call.decisions,
    report: null,
  };
}

/** The state of a call that has not been removed yet. */
export function callStateOf(call: Call): Exclude<CallState, 'waiting'> {
  if (call.phase === 'lingering') return 'lingering';
  if (call.frozenSinceMs !== undefined) return 'frozen';
  return call.throttledSinceMs === undefined ? 'running' : 'throttled';
}

/** A call that has not ended, as the control socket shows it. */
export function liveCall(call: Call, enforcer: Enforcer, usedBytes: number, nowMs: number): LiveCall {
  return {
    ...identity(call),
    state: callStateOf(call),
    memory: { ...memoryOf(call, enforcer.stats(call.cgroup), nowMs), usedBytes },
    decisions: call.decisions,
  };
}

function endOf({ code, signal }: Ending): Pick<CallRecord, 'exitCode' | 'signal'> {
  const name = signal === undefined ? null : (signalNames.get(signal) ?? `SIG${signal}`);
  return { exitCode: code ?? null, signal: name };
}

function identity(call: Call) {
  return {
    id: call.id,
    session: call.session.id,
    uid: call.session.uid,
    agent: call.agent,
    command: call.command,
    startedAt: new Date(call.startedAtMs).toISOString(),
  };
}

function memoryOf(call: Call, stats: ThrottleStats, nowMs: number): Omit<CallMemory, 'oomKills'> {
  return {
    highBytes: finiteOrNull(call.limits.memoryHighBytes),
    maxBytes: finiteOrNull(call.limits.memoryMaxBytes),
    peakBytes: call.cgroup.readNumber(files.memoryPeak),
    throttledMs: Math.round(stats.throttledMs),
    frozenMs: Math.round(call.frozenMs(nowMs)),
    highEvents: call.cgroup.memoryEvents().high,
  };
}

function pidsMaxHitsOf(call: Call): number {
  try {
    return parseFlatKeyed(call.cgroup.read(files.pidsEvents)).get('max') ?? 0;
  } catch {
    return 0; // the tree has no pids controller, which is reported as degraded at start-up
  }
}

/** The most tasks that it had; Infinity where the kernel does not say (before 6.1). */
function pidsPeakOf(call: Call): number {
  try {
    return call.cgroup.readNumber(files.pidsPeak);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function finiteOrNull(bytes: number): number | null {
  return Number.isFinite(bytes) ? bytes : null;
}
