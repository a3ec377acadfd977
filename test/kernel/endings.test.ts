// SPDX-License-Identifier: Apache-2.0
// Ways in which a command can end, what is recorded of each, and the very words that its agent reads.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import type { CallRecord } from '../../daemon/control/types.ts';
import { formatBytes, formatMs } from '../../daemon/units.ts';
import { agentrmBash, type Ran, TestDaemon, top, until, useMemory } from '../lib/daemon.ts';

const MIB = 2 ** 20;
const [major = 0, minor = 0] = release().split('.').map(Number);
const COUNTS_PIDS_BY_CALL = major < 6 || (major === 6 && minor < 11);
/** In one process, which takes the place of a shell that executes it. */
const use = (mib: number) => `${top}build/cmake/test/agentrm-load --bytes ${mib}M threads 1`;
const FOREVER = 'tail -f /dev/null';
/** A process that stays behind; it must not hold the pipes that the test reads to their end. */
const stays = (command = FOREVER) => `${command} >/dev/null 2>&1 </dev/null &`;
const MAX_128 = 'memory.max=128M';
/** Where the shell's own cgroup is. */
const HERE = 'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)';

const ON_TMPFS = '/dev/shm/agentrm-endings';
/** For Node, which has a pool of them; says when it is up. */
const MANY_THREADS = 'require("fs").writeFileSync("ready", ""); setInterval(() => {}, 1e9)';

/** What is said, without `agentrm: `, given the figures that the kernel had in the end. */
type Line = string | ((record: CallRecord) => string);

interface Ending {
  readonly what: string;
  readonly command: string;
  readonly intent?: string;
  /** Exit status, or name of the signal; null: nobody was left who saw it. Default: 0. */
  readonly end?: number | NodeJS.Signals | null;
  readonly outcome?: CallRecord['outcome'];
  readonly line?: Line;
  /** There is a line in the record, but nobody left to read it. */
  readonly unread?: true;
  /** What else runs it, or does something to it; the default only runs it. */
  readonly how?: (daemon: TestDaemon, ending: Ending) => Promise<Ran>;
}

const peak = (record: CallRecord) => formatBytes(record.memory.peakBytes);
const asks = (intent: string) => `; ask for more with AGENTRM_INTENT="${intent}"`;
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

function slowed(record: CallRecord): string {
  const { frozenMs, throttledMs } = record.memory;
  const parts = [
    ...(frozenMs >= 1 ? [`frozen ${formatMs(frozenMs)}`] : []),
    ...(throttledMs >= 1 ? [`throttled ${formatMs(throttledMs)}`] : []),
  ];
  return `slowed for memory: ${parts.join(', ')}; used ${peak(record)} of memory.high 64 MiB (${lent(record)} lent)`;
}

/** By itself, or by somebody else, but not for any limit: there is nothing to tell. */
const untold: readonly Ending[] = [
  { what: 'success', command: 'true' },
  { what: 'an exit status', command: 'exit 7', end: 7 },
  { what: 'the exit status of a kill, without one', command: 'exit 137', end: 137 },
  { what: 'kill -9 of the shell itself', command: 'kill -9 $$', end: 'SIGKILL' },
  { what: 'SIGTERM', command: 'kill -TERM $$', end: 'SIGTERM' },
  { what: 'SIGINT', command: 'kill -INT $$', end: 'SIGINT' },
  { what: 'SIGHUP', command: 'kill -HUP $$', end: 'SIGHUP' },
  { what: 'a crash', command: 'ulimit -c 0; kill -SEGV $$', end: 'SIGSEGV' },
  { what: 'a trap that turns a signal into a status', command: "trap 'exit 3' TERM; kill $$; :", end: 3 },
  { what: 'a child killed by kill -9, the shell going on', command: 'sh -c "kill -9 \\$\\$"; exit 0' },
  {
    what: 'a child killed by kill -9 as the last word',
    command: 'sh -c "kill -9 \\$\\$"; exit $?',
    end: 137,
  },
  { what: 'kill -9 of the middle of a pipeline', command: 'echo x | sh -c "kill -9 \\$\\$" | cat' },
  {
    what: 'kill -9 in a pipeline with pipefail',
    command: 'set -o pipefail; sh -c "kill -9 \\$\\$" | cat',
    end: 137,
  },
  { what: 'kill -9 in a nested shell', command: 'bash -c "bash -c \'kill -9 \\$\\$\'; exit 4"', end: 4 },
  { what: 'a reader that had enough', command: 'yes | head -n 1' },
  { what: 'its own timeout(1)', command: `timeout 0.1 ${FOREVER}`, end: 124 },
  { what: 'its own timeout(1) by SIGKILL', command: `timeout -s KILL 0.1 ${FOREVER}; exit $?`, end: 137 },
  { what: 'a syntax error', command: 'if', end: 2 },
  { what: 'a command that is not there', command: 'agentrm-no-such-command', end: 127 },
  { what: 'a file that is no program', command: '/etc/passwd', end: 126 },
  { what: 'a failed allocation below its limits', command: `ulimit -v 40000; ${use(500)}; exit $?`, end: 1 },
  {
    what: 'words on stderr that look like a kill',
    command: 'echo "Killed: out of memory" >&2; exit 137',
    end: 137,
  },
  { what: 'a child in the background that ended in time', command: 'true & wait; exit 5', end: 5 },
  {
    what: 'SIGTERM to the wrapper',
    command: FOREVER,
    end: 'SIGTERM',
    how: (daemon, ending) => meanwhile(daemon, ending, ({ child }) => void child.kill('SIGTERM')),
  },
  {
    what: 'a cgroup.kill by hand, of which the kernel keeps no trace',
    command: FOREVER,
    end: 'SIGKILL',
    how: (daemon, ending) =>
      meanwhile(daemon, ending, ({ cgroup }) => writeFileSync(`${cgroup}/cgroup.kill`, '1')),
  },
];

const memory: readonly Ending[] = [
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
  { what: 'a runaway in a session of its own', command: `setsid -w ${use(500)}`, intent: MAX_128, ...maxed },
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
    line: (record) => `${slowed(record)}${asks('memory.high=192M')}`,
  },
  {
    what: 'a memory.high that was too low, in a pipeline that fails',
    command: `set -o pipefail; (${use(150)}; exit 9) | cat`,
    intent: 'memory.high=64M',
    end: 9,
    line: (record) => `${slowed(record)}${asks('memory.high=192M')}`,
  },
  {
    what: 'a runaway that was lent to first: why it died says all',
    command: use(500),
    intent: 'memory.high=64M memory.max=128M',
    ...maxed,
  },
];

const timed = `killed: ran longer than its timeout of 1 s (time frozen or waiting not counted)${asks('timeout=2s')}`;
const others: readonly Ending[] = [
  {
    what: 'a timeout',
    command: FOREVER,
    intent: 'timeout=1s',
    end: 'SIGKILL',
    outcome: 'timeout',
    line: timed,
  },
  {
    what: 'a timeout of a pipeline that ignores SIGTERM',
    command: `trap '' TERM; ${FOREVER} | cat; exit 0`,
    intent: 'timeout=1s',
    end: 'SIGKILL',
    outcome: 'timeout',
    line: timed,
  },
  {
    what: 'a command and the timeout that it did not reach',
    command: 'exit 6',
    intent: 'timeout=10m',
    end: 6,
  },
  {
    what: 'a refused fork',
    command: `${top}build/cmake/test/agentrm-load --bytes 4K procs 20; exit $?`,
    intent: 'pids.max=8',
    end: 1,
    line: `reached its pids.max 8: 1 fork refused${asks('pids.max=16')}`,
  },
  {
    what: "a fork that somebody else's pids.max refused",
    command: `${top}build/cmake/test/agentrm-load --bytes 4K procs 20; exit $?`,
    intent: 'pids.max=1000',
    end: 1,
    // From 6.11 on the kernel counts it where the limit is, and the call has nothing to tell.
    ...(COUNTS_PIDS_BY_CALL
      ? { line: '1 fork refused by a limit that is not its own (its pids.max is 1000)' }
      : {}),
    how: async (daemon, ending) => {
      const held = Number(readFileSync(`${daemon.cgroup}/pids.current`, 'utf8'));
      writeFileSync(`${daemon.cgroup}/pids.max`, String(held + 8));
      try {
        return await plain(daemon, ending);
      } finally {
        writeFileSync(`${daemon.cgroup}/pids.max`, 'max');
      }
    },
  },
  {
    what: 'a fork storm',
    command: "perl -e 'for (1..7) { fork } select undef, undef, undef, 0.3; 1 while wait > 0'",
    intent: 'pids.max=10',
    line: (record) => {
      const hits = record.report?.pidsMaxHits ?? 0;
      assert.ok(hits > 1, `${hits} forks refused`);
      return `reached its pids.max 10: ${hits} forks refused${asks('pids.max=20')}`;
    },
  },
  {
    what: 'a process left behind',
    command: `${stays()} exit 2`,
    end: 2,
    line: '1 process left running in the background, within the same limits',
  },
  {
    what: 'processes left behind in sessions of their own',
    command: `setsid ${stays()} nohup ${stays()} kill -TERM $$`,
    end: 'SIGTERM',
    line: '2 processes left running in the background, within the same limits',
  },
  {
    what: 'a process with many threads left behind is one process',
    command: `mkfifo ready; ${stays(`${process.execPath} -e '${MANY_THREADS}'`)} read <ready; rm ready; :`,
    line: '1 process left running in the background, within the same limits',
  },
  {
    what: 'an intent that cannot be read: the defaults, and one line',
    command: 'exit 8',
    intent: 'memory.max=-1g',
    end: 8,
    how: async (daemon, ending) => {
      const ran = await plain(daemon, ending);
      const bad =
        'agentrm: bad AGENTRM_INTENT: "memory.max=-1g": negative; it is ignored, the defaults apply\n';
      assert.ok(ran.stderr.startsWith(bad), ran.stderr);
      return { ...ran, stderr: ran.stderr.slice(bad.length) };
    },
  },
  {
    what: 'the death of the wrapper',
    command: FOREVER,
    end: null,
    outcome: 'lost',
    line: 'killed: its wrapper was killed',
    unread: true,
    how: (daemon, ending) => meanwhile(daemon, ending, ({ child }) => void child.kill('SIGKILL')),
  },
  {
    what: 'the end of its session',
    command: FOREVER,
    end: 'SIGKILL',
    outcome: 'killed',
    line: 'killed: its session has ended',
    how: (daemon, ending) =>
      meanwhile(daemon, ending, ({ child }) => void child.kill('SIGKILL'), 'session-that-ends'),
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

const NO_ROOM =
  'pool: { budget: 64M, keepAvailable: 100G }\nceiling: memory.max=1G\nenforcement: { freezeDeadline: 1s }\n';
const short: readonly Ending[] = [
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

const waiting: readonly Ending[] = [
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

const leftoversKilled: readonly Ending[] = [
  {
    what: 'a process left behind that may not stay',
    command: `${stays()} exit 2`,
    end: 2,
    line: '1 process left in the background, killed',
  },
];

function plain(daemon: TestDaemon, { command, intent }: Ending): Promise<Ran> {
  const env: Record<string, string> = intent === undefined ? {} : { AGENTRM_INTENT: intent };
  return daemon.run(command, { env, cwd: daemon.dir });
}

interface Running {
  /** The wrapper; with a session the stand-in for an agent, which has a shell start the wrapper. */
  readonly child: ChildProcess;
  readonly cgroup: string;
}

/** Starts the command, does something to it once it runs, and waits for its end. */
async function meanwhile(
  daemon: TestDaemon,
  { command, intent }: Ending,
  act: (running: Running) => void | Promise<void>,
  session?: string,
): Promise<Ran> {
  const before = (await daemon.events()).at(-1)?.seq ?? 0;
  const shell = `${command.includes('<gate') ? 'mkfifo gate; ' : ''}echo; ${command}`;
  const env = daemon.env({
    ...(intent === undefined ? {} : { AGENTRM_INTENT: intent }),
    ...(session === undefined ? {} : { AGENTRM_SESSION: session }),
  });
  const argv = JSON.stringify(['-c', '"$@"; :', 'sh', agentrmBash, '-c', shell]);
  const agent = `require('child_process').spawnSync('/bin/sh', ${argv}, { stdio: 'inherit' })`;
  const child = spawn(
    session === undefined ? agentrmBash : process.execPath,
    session === undefined ? ['-c', shell] : ['-e', agent],
    { env, cwd: daemon.dir, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const output = Promise.all([text(child.stderr), once(child, 'close')]);
  // Its first word, an empty line, says that it has been placed and runs.
  await once(child.stdout, 'data');
  child.stdout.resume();
  const started = await daemon.event((event) => event.kind === 'call-start' && event.seq > before);
  const cgroup = await cgroupOf(daemon, String(started.call));
  await act({ child, cgroup });
  const [stderr, [code, signal]] = await output;
  return { code, signal, stdout: '', stderr };
}

async function cgroupOf(daemon: TestDaemon, call: string): Promise<string> {
  const { sessions } = await daemon.get<{ sessions: { id: string; cgroup: string }[] }>('/v1/sessions');
  const session = (await daemon.liveCalls()).find(({ id }) => id === call)?.session;
  return `${sessions.find(({ id }) => id === session)?.cgroup}/${call}`;
}

/** The record of the one call that is not among those. */
async function newRecord(daemon: TestDaemon, known: ReadonlySet<string>): Promise<CallRecord> {
  let found: CallRecord[] = [];
  await until(async () => {
    found = (await daemon.calls()).filter(({ id }) => !known.has(id));
    return found.length > 0;
  }, 'the call is recorded');
  assert.equal(found.length, 1, JSON.stringify(found));
  return found[0] as CallRecord;
}

describe('the end of a command', () => {
  const daemon = new TestDaemon();
  const configure = async (config: string) => {
    const before = (await daemon.events()).at(-1)?.seq ?? 0;
    writeFileSync(daemon.configPath, `stateDir: ${daemon.dir}/state\nreport: { slow: 1ms }\n${config}`);
    daemon.signal('SIGHUP');
    await daemon.event((event) => event.kind === 'reload' && event.seq > before);
  };

  before(async () => {
    writeFileSync(
      daemon.configPath,
      `stateDir: ${daemon.dir}/state\nreport: { slow: 1ms }\nceiling: memory.max=256M\n`,
    );
    await daemon.start();
  });
  after(async () => {
    writeFileSync(`${daemon.cgroup}/cgroup.kill`, '1');
    await daemon.close();
  });

  const table = (endings: readonly Ending[]) => {
    for (const ending of endings) {
      const { what, end = 0, outcome = 'ok', line, unread, how = plain } = ending;
      test(what, async () => {
        const known = new Set((await daemon.calls()).map(({ id }) => id));
        const ran = await how(daemon, ending);
        const record = await newRecord(daemon, known);
        const said = ran.stderr.split('\n').filter((text) => text.startsWith('agentrm:'));
        const expected =
          line === undefined ? null : `agentrm: ${typeof line === 'string' ? line : line(record)}`;
        assert.deepEqual(
          {
            end: record.signal ?? record.exitCode,
            outcome: record.outcome,
            recorded: record.report?.line ?? null,
            said,
          },
          { end, outcome, recorded: expected, said: expected === null || unread ? [] : [expected] },
          `${JSON.stringify(record)}\n${ran.stderr}`,
        );
        // The agent sees what it would have seen without the wrapper.
        if (!unread) assert.deepEqual(ran.signal ?? ran.code, end);
      });
    }
  };

  table(untold);
  table(memory);
  table(others);

  describe('on a host without room', () => {
    before(() => configure(NO_ROOM));
    table(short);
  });
  describe('on a host where calls wait', () => {
    before(() => configure(`${NO_ROOM}admission: { wait: 700ms, pressurePercent: 0 }\n`));
    table(waiting);
  });
  describe('where nothing may stay', () => {
    before(() => configure('leftovers: kill\n'));
    table(leftoversKilled);
  });
});
