// SPDX-License-Identifier: Apache-2.0
import type { HostPressure, TurnClass } from './types.ts';

/** What was known when a run was found abandoned; all of it goes into the log. */
export interface AbandonedEvidence {
  readonly session: string;
  readonly class: TurnClass;
  /** Open runs that ended with it: the user's, and subagents'. */
  readonly runs: number;
  readonly limitMs: number;
  /** Since the session's last turn came or ended. */
  readonly sinceTurnMs: number;
  /** From the kernel; null: the node agent does not know the session, or does not run. */
  readonly calls: { readonly live: 0; readonly noneForMs: number } | null;
  /** It was one of a limited number of running agents: another may run now. */
  readonly holdsPlace: boolean;
  readonly dryRun: boolean;
}

/** A turn that would have had a lane but for the host's memory. */
export interface HeldEvidence {
  readonly turn: string;
  readonly session: string;
  readonly class: TurnClass;
  readonly host: HostPressure;
}

/** What others than a turn's own proxy want to hear of. They must not throw. */
export interface SchedulerEvents {
  /** A session has shown its class, or another one. */
  readonly onClass?: (session: string, turnClass: TurnClass) => void;
  readonly onAbandoned?: (evidence: AbandonedEvidence) => void;
  readonly onHeld?: (evidence: HeldEvidence) => void;
  /** It has its lane, or has gone. */
  readonly onHeldEnd?: (evidence: HeldEvidence, heldMs: number) => void;
}
