// SPDX-License-Identifier: Apache-2.0
import type { ControlFailure } from '../control/client.ts';

/** Exit statuses of `agentrm`. */
export const exit = {
  ok: 0,
  failed: 1,
  usage: 2,
  noDaemon: 3,
  denied: 4,
  /** It works, but enforcement is weaker than it could be. */
  degraded: 5,
} as const;

const ofFailure: Readonly<Record<ControlFailure, number>> = {
  'no-daemon': exit.noDaemon,
  denied: exit.denied,
  failed: exit.failed,
};

/** The exit status for an error that ended a command. */
export function exitOf(error: unknown): number {
  // Not instanceof ControlError: that would load the HTTP client for commands that need none.
  if (!(error instanceof Error) || !('failure' in error)) return exit.failed;
  return ofFailure[error.failure as ControlFailure] ?? exit.failed;
}
