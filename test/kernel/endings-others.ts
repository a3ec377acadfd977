// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { loadProgram } from '../lib/daemon.ts';
import { asks, type Ending, FOREVER, meanwhile, plain } from './ending-lab.ts';

const [major = 0, minor = 0] = release().split('.').map(Number);
const COUNTS_PIDS_BY_CALL = major < 6 || (major === 6 && minor < 11);

/** A process that stays behind; it must not hold the pipes that the test reads to their end. */
const stays = (command = FOREVER) => `${command} >/dev/null 2>&1 </dev/null &`;
/** For Node, which has a pool of them; says when it is up. */
const MANY_THREADS = 'require("fs").writeFileSync("ready", ""); setInterval(() => {}, 1e9)';

const timed = `killed: ran longer than its timeout of 1 s (time frozen or waiting not counted)${asks('timeout=2s')}`;
/** For other limits, for what it has left behind, and with who ran it. */
export const others: readonly Ending[] = [
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
    command: `${loadProgram} --bytes 4K procs 20; exit $?`,
    intent: 'pids.max=8',
    end: 1,
    line: `reached its pids.max 8: 1 fork refused${asks('pids.max=16')}`,
  },
  {
    what: "a fork that somebody else's pids.max refused",
    command: `${loadProgram} --bytes 4K procs 20; exit $?`,
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
    notUser: 'call-tests.ts asks for it',
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
];

/** Where nothing may stay. */
export const leftoversKilled: readonly Ending[] = [
  {
    what: 'a process left behind that may not stay',
    command: `${stays()} exit 2`,
    end: 2,
    line: '1 process left in the background, killed',
  },
];
