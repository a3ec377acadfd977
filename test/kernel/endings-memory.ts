// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import type { CallRecord } from '../../daemon/control/types.ts';
import { formatBytes, formatMs } from '../../daemon/units.ts';
import { agentrmBash, useMemory } from '../lib/daemon.ts';
import { asks, type Ending, type Line, type Mode, meanwhile, peak, plain, use } from './ending-lab.ts';

const MIB = 2 ** 20;
const MAX_128 = 'memory.max=128M';
/** Where the shell's own cgroup is. */
const HERE = 'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)';
/** Of its places in a tree a few are enough where nobody but the kernel takes the tree. */
const THE_KERNELS = "memory.oom.group's doing";
const ON_TMPFS = '/dev/shm/agentrm-endings';

const reached =
  (max: string, advice: string, who = ''): Line =>
  (record) =>
    `killed for memory${who}: reached its memory.max ${max} (peak ${peak(record)})${asks(`memory.max=${advice}`)}`;
const maxed = { end: 'SIGKILL', outcome: 'oom', line: reached('128 MiB', '256M') } as const;

/** The most that was lent over a memory.high, by the decisions. */
function lent(record: CallRecord): string {
  const highest = Math.max(0, ...record.decisions.map((decision) => decision.highBytes ?? 0));
  return formatBytes(highest - (record.memory.highBytes ?? 0));
}

/** Without BPF nobody sees the throttle itself, only that the call waited for memory. */
function slowed(record: CallRecord, mode: Mode): string {
  const held = mode === 'bpf' ? 'throttled' : 'stalled';
  const { frozenMs, throttledMs } = record.memory;
  const parts = [
    ...(frozenMs >= 1 ? [`frozen ${formatMs(frozenMs)}`] : []),
    ...(throttledMs >= 1 ? [`${held} ${formatMs(throttledMs)}`] : []),
  ];
  return `slowed for memory: ${parts.join(', ')}; used ${peak(record)} of memory.high 64 MiB (${lent(record)} lent)`;
}

/** For memory: killed, or slowed and lent to. */
export const memory: readonly Ending[] = [
  { what: 'a runaway', command: use(500), intent: MAX_128, ...maxed },
  { what: 'a runaway that is a child', command: `${useMemory(500)}; echo no`, intent: MAX_128, ...maxed },
  { what: 'a runaway first in a pipeline', command: `${use(500)} | cat`, intent: MAX_128, ...maxed },
  {
    what: 'a runaway in the middle of a pipeline',
    command: `echo x | ${use(500)} | cat`,
    intent: MAX_128,
    ...maxed,
  },
  {
    what: 'a runaway in the background, waited for',
    command: `${use(500)} & wait; exit 0`,
    intent: MAX_128,
    ...maxed,
  },
  {
    what: 'a runaway in a nested shell',
    notUser: THE_KERNELS,
    command: `bash -c "bash -c '${use(500)}; :'; exit 0"; exit 0`,
    intent: MAX_128,
    ...maxed,
  },
  {
    what: 'a runaway below a wrapper below the wrapper: one line, of the one call',
    command: `${agentrmBash} -c '${use(500)}; :'; exit 0`,
    intent: MAX_128,
    ...maxed,
  },
  {
    what: 'a runaway in a session of its own',
    command: `setsid -w ${use(500)}`,
    intent: MAX_128,
    ...maxed,
    notUser: THE_KERNELS,
  },
  {
    what: 'a runaway by its own intent, which is the first word of the command',
    command: `AGENTRM_INTENT="memory.max=128M" ${use(500)}`,
    ...maxed,
  },
  {
    what: 'files on tmpfs',
    command: `head -c 500M /dev/zero >${ON_TMPFS}`,
    intent: MAX_128,
    ...maxed,
    how: async (daemon, ending) => {
      const ran = await plain(daemon, ending);
      // It would stay charged to the cgroup above.
      rmSync(ON_TMPFS);
      return ran;
    },
  },
  {
    what: 'a runaway whose shell the OOM killer may not take',
    command: `echo -1000 >/proc/self/oom_score_adj; (echo 0 >/proc/self/oom_score_adj; exec ${use(500)}); exit 3`,
    intent: MAX_128,
    end: 3,
    outcome: 'oom',
    line: reached('128 MiB', '256M', ', but not the shell'),
    notUser: 'only root may lower oom_score_adj; a shell that outlives its runaway comes below',
  },
  {
    what: 'a runaway at the ceiling',
    command: use(500),
    intent: 'memory.max=2G',
    end: 'SIGKILL',
    outcome: 'oom',
    line: (record) =>
      `killed for memory: reached its memory.max 256 MiB (peak ${peak(record)}), the most that is allowed here; make it smaller or split it`,
  },
  {
    what: 'a limit that the command itself has set',
    command: `${HERE}; mkdir $d/shell $d/low; echo $$ >$d/shell/cgroup.procs; echo +memory >$d/cgroup.subtree_control
echo 16M >$d/low/memory.max; (echo $BASHPID >$d/low/cgroup.procs; exec ${use(100)}); exit 0`,
    intent: MAX_128,
    outcome: 'oom',
    line: (record) =>
      `killed for memory, but not the shell: reached a limit that the command itself has set (used ${peak(record)}, its memory.max is 128 MiB)`,
  },
  {
    what: 'a limit further up',
    notUser:
      'on 6.1 the kernel may reclaim for minutes there before it gives up: once is enough, its counts are the same',
    command: use(200),
    intent: 'memory.high=240M memory.max=250M',
    end: 'SIGKILL',
    outcome: 'oom',
    line: (record) =>
      `killed for memory by a limit that is not its own (used ${peak(record)}, its memory.max is 250 MiB); run it again when less else runs, or make it smaller`,
    how: async (daemon, ending) => {
      writeFileSync(`${daemon.cgroup}/memory.max`, String(96 * MIB));
      try {
        return await plain(daemon, ending);
      } finally {
        writeFileSync(`${daemon.cgroup}/memory.max`, 'max');
      }
    },
  },
  {
    what: 'a memory.high that was too low, lent to',
    command: use(150),
    intent: 'memory.high=64M',
    line: (record, mode) => `${slowed(record, mode)}${asks('memory.high=192M')}`,
  },
  {
    what: 'a memory.high that was too low, in a pipeline that fails',
    command: `set -o pipefail; (${use(150)}; exit 9) | cat`,
    intent: 'memory.high=64M',
    end: 9,
    line: (record, mode) => `${slowed(record, mode)}${asks('memory.high=192M')}`,
  },
  {
    what: 'a runaway that was lent to first: why it died says all',
    command: use(500),
    intent: 'memory.high=64M memory.max=128M',
    ...maxed,
  },
  {
    what: 'a runaway under the next daemon, its own having been killed',
    command: `read <gate; ${use(500)}`,
    intent: MAX_128,
    ...maxed,
    how: (daemon, ending) =>
      meanwhile(daemon, ending, async () => {
        await daemon.crash();
        await daemon.start();
        writeFileSync(`${daemon.dir}/gate`, '\n');
      }),
  },
];

export const NO_ROOM =
  'pool: { budget: 64M, keepAvailable: 100G }\nceiling: memory.max=1G\nenforcement: { freezeDeadline: 1s }\n';
/** With that configuration. */
export const short: readonly Ending[] = [
  {
    what: 'a host that has nothing to lend until the deadline',
    command: use(150),
    intent: 'memory.high=64M memory.max=250M',
    end: 'SIGKILL',
    outcome: 'killed',
    line: (record) => {
      assert.ok(record.memory.frozenMs >= 1000, JSON.stringify(record));
      return `killed for memory: the host had none left to lend (used ${peak(record)}, frozen ${formatMs(record.memory.frozenMs)}); run it again when less else runs, or make it smaller`;
    },
  },
];

/** With that, and where calls wait for memory before they start. */
export const waiting: readonly Ending[] = [
  {
    what: 'a wait for memory before it starts',
    command: 'exit 3',
    end: 3,
    line: (record) => {
      const waitMs = record.report?.admissionWaitMs ?? 0;
      assert.ok(waitMs >= 700, `waited ${waitMs} ms`);
      return `waited ${formatMs(waitMs)} for memory before it started`;
    },
  },
];
