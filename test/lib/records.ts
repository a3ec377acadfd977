// SPDX-License-Identifier: Apache-2.0
import type { CallRecord } from '../../daemon/control/types.ts';

/** A finished call that ended well; the ids of a run of numbers are in order. */
export function callRecord(number: number, changes: Partial<CallRecord> = {}): CallRecord {
  return {
    id: `c${number.toString(16).padStart(12, '0')}`,
    session: 'session-a',
    uid: 1000,
    agent: 'claude-code',
    command: 'python3',
    exitCode: 0,
    signal: null,
    startedAt: new Date(Date.UTC(2026, 0, 1) + number).toISOString(),
    durationMs: 1500,
    outcome: 'ok',
    memory: {
      highBytes: 128 * 2 ** 20,
      maxBytes: 256 * 2 ** 20,
      peakBytes: 90 * 2 ** 20,
      throttledMs: 0,
      frozenMs: 0,
      highEvents: 0,
      oomKills: 0,
    },
    cpu: { userMs: 1200, systemMs: 80 },
    decisions: [],
    report: null,
    ...changes,
  };
}
