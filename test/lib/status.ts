// SPDX-License-Identifier: Apache-2.0
import type { Status } from '../../daemon/control/types.ts';

/** What a busy daemon with BPF answers. */
export function status(changes: Partial<Status> = {}): Status {
  return {
    version: '1.2.3',
    uid: 0,
    pid: 4321,
    uptimeMs: 3 * 3_600_000 + 5 * 60_000,
    backend: {
      mode: 'bpf',
      hooks: ['schedule_timeout_killable', 'reclaim_high', 'oom_kill_process'],
      reason: null,
      degraded: [],
    },
    kernel: '6.12.48',
    cgroup: '/sys/fs/cgroup/agentrm',
    socket: '/run/agentrm/agentrm.sock',
    pool: {
      budgetBytes: 12 * 2 ** 30,
      reserveBytes: 2 ** 30,
      usedBytes: 3.2 * 2 ** 30,
      roomBytes: 8.8 * 2 ** 30,
    },
    sessions: 2,
    calls: { waiting: 0, running: 3, throttled: 1, frozen: 1, lingering: 0 },
    counters: {
      calls: 1204,
      ok: 1190,
      killed: 2,
      oom: 9,
      timeout: 2,
      lost: 1,
      freezes: 31,
      lends: 27,
      kills: 2,
    },
    ...changes,
  };
}
