// SPDX-License-Identifier: Apache-2.0
import { monotonicZeroMs, nowMs } from '../clock.ts';
import type { Decision } from '../control/types.ts';
import type { Cgroup } from '../kernel/cgroup.ts';
import { STATE_XATTR } from '../kernel/files.ts';
import type { ProcessId } from '../kernel/proc.ts';
import type { Log } from '../log.ts';
import type { Declared, Limits } from '../policy/limits.ts';
import type { Lines } from '../policy/lines.ts';
import type { Call } from './call.ts';
import type { Origin } from './learning.ts';

/*
 * What a next daemon must know of a call stands on the call's own cgroup, as an extended attribute:
 * it lives exactly as long as the cgroup, needs no file of its own and cannot name the wrong one.
 */

const VERSION = 1;
/** Of the decisions only the last are kept over a restart; an attribute has room for little more. */
const KEPT_DECISIONS = 16;

interface Saved {
  readonly v: number;
  /** Of nowMs(); as it is read back, of the reader's own. */
  readonly startedAtMs: number;
  /** Of the daemon that saved it. Absent in what earlier versions have saved. */
  readonly monotonicZeroMs?: number;
}

export interface SavedCall extends Saved {
  readonly limits: Limits;
  /** Absent in what older daemons saved. */
  readonly declared?: Declared;
  readonly lines: Lines;
  readonly ceilingBytes: number;
  readonly command: string;
  readonly agent: string | null;
  readonly hugePages: boolean;
  readonly wrapper: ProcessId;
  readonly ancestors: readonly ProcessId[];
  readonly agentProcess: ProcessId | null;
  /** Absent in what earlier versions have saved. */
  readonly origin?: Origin | null;
  readonly admissionWaitMs: number;
  readonly cycle: number;
  readonly frozenMs: number;
  readonly lingering: boolean;
  readonly decisions: readonly Decision[];
}

export interface SavedSession extends Saved {
  readonly uid: number;
  readonly id: string;
  readonly agent: string | null;
  readonly owners: readonly ProcessId[];
}

export function saveCall(call: Call): void {
  const saved: SavedCall = {
    v: VERSION,
    limits: call.limits,
    ...(call.declared === null ? {} : { declared: call.declared }),
    lines: call.lines,
    ceilingBytes: call.ceilingBytes,
    command: call.command.slice(0, 1024),
    agent: call.agent,
    hugePages: call.hugePages,
    wrapper: call.wrapper,
    ancestors: call.ancestors,
    agentProcess: call.agentProcess,
    origin: call.origin,
    admissionWaitMs: call.admissionWaitMs,
    startedAtMs: call.startedAtMs,
    monotonicZeroMs,
    cycle: call.cycle,
    frozenMs: call.frozenMs(nowMs()),
    lingering: call.phase === 'lingering',
    decisions: call.decisions.slice(-KEPT_DECISIONS),
  };
  call.cgroup.setState(STATE_XATTR, encode(saved));
}

/** As saveCall, but what fails is logged: it only costs the call its place in a daemon to come. */
export function saveOrLog(call: Call, log: Log): void {
  try {
    saveCall(call);
  } catch (error) {
    log.error({ err: error, call: call.id }, 'state of call not saved');
  }
}

export function saveSession(cgroup: Cgroup, session: Omit<SavedSession, 'v' | 'monotonicZeroMs'>): void {
  cgroup.setState(STATE_XATTR, encode({ v: VERSION, monotonicZeroMs, ...session }));
}

/** Undefined if the cgroup has no state or one of another version: then it is nobody's call. */
export function loadCall(cgroup: Cgroup): SavedCall | undefined {
  return load<SavedCall>(cgroup);
}

export function loadSession(cgroup: Cgroup): SavedSession | undefined {
  return load<SavedSession>(cgroup);
}

function load<T extends Saved>(cgroup: Cgroup): T | undefined {
  const text = cgroup.getState(STATE_XATTR);
  if (text === null) return undefined;
  try {
    // Only the daemon's own user can write this attribute, and only this file does. Below root that user
    // is the calls' too: what makes no sense then is an error of that session's adoption alone.
    const value = JSON.parse(text, (_, entry) =>
      entry === 'Infinity' ? Number.POSITIVE_INFINITY : entry,
    ) as T;
    if (value.v !== VERSION) return undefined;
    // A cgroup does not outlive the boot.
    const shiftMs = monotonicZeroMs - (value.monotonicZeroMs ?? monotonicZeroMs);
    return { ...value, startedAtMs: value.startedAtMs + shiftMs };
  } catch {
    return undefined;
  }
}

/** JSON has no Infinity, which is what `max` is in limits. */
function encode(value: object): string {
  return JSON.stringify(value, (_, entry) => (entry === Number.POSITIVE_INFINITY ? 'Infinity' : entry));
}
