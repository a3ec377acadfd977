// SPDX-License-Identifier: Apache-2.0
import { writeFileSync } from 'node:fs';
import { type Ending, FOREVER, meanwhile, use } from './ending-lab.ts';

/** Who enforces has no part in it: under one daemon is enough. */
const THE_SHELLS = "the shell's own doing";

/** By itself, or by somebody else, but not for any limit: there is nothing to tell. */
export const untold: readonly Ending[] = [
  { what: 'success', command: 'true' },
  { what: 'an exit status', command: 'exit 7', end: 7 },
  { what: 'the exit status of a kill, without one', command: 'exit 137', end: 137, notUser: THE_SHELLS },
  { what: 'kill -9 of the shell itself', command: 'kill -9 $$', end: 'SIGKILL' },
  { what: 'SIGTERM', command: 'kill -TERM $$', end: 'SIGTERM' },
  { what: 'SIGINT', command: 'kill -INT $$', end: 'SIGINT', notUser: THE_SHELLS },
  { what: 'SIGHUP', command: 'kill -HUP $$', end: 'SIGHUP', notUser: THE_SHELLS },
  { what: 'a crash', command: 'ulimit -c 0; kill -SEGV $$', end: 'SIGSEGV' },
  {
    what: 'a trap that turns a signal into a status',
    command: "trap 'exit 3' TERM; kill $$; :",
    end: 3,
    notUser: THE_SHELLS,
  },
  { what: 'a child killed by kill -9, the shell going on', command: 'sh -c "kill -9 \\$\\$"; exit 0' },
  {
    what: 'a child killed by kill -9 as the last word',
    command: 'sh -c "kill -9 \\$\\$"; exit $?',
    end: 137,
  },
  { what: 'kill -9 of the middle of a pipeline', command: 'echo x | sh -c "kill -9 \\$\\$" | cat' },
  {
    what: 'kill -9 in a pipeline with pipefail',
    notUser: THE_SHELLS,
    command: 'set -o pipefail; sh -c "kill -9 \\$\\$" | cat',
    end: 137,
  },
  {
    what: 'kill -9 in a nested shell',
    command: 'bash -c "bash -c \'kill -9 \\$\\$\'; exit 4"',
    end: 4,
    notUser: THE_SHELLS,
  },
  { what: 'a reader that had enough', command: 'yes | head -n 1', notUser: THE_SHELLS },
  { what: 'its own timeout(1)', command: `timeout 0.1 ${FOREVER}`, end: 124, notUser: THE_SHELLS },
  { what: 'its own timeout(1) by SIGKILL', command: `timeout -s KILL 0.1 ${FOREVER}; exit $?`, end: 137 },
  { what: 'a syntax error', command: 'if', end: 2, notUser: THE_SHELLS },
  { what: 'a command that is not there', command: 'agentrm-no-such-command', end: 127, notUser: THE_SHELLS },
  { what: 'a file that is no program', command: '/etc/passwd', end: 126, notUser: THE_SHELLS },
  {
    what: 'a failed allocation below its limits',
    command: `ulimit -v 40000; ${use(500)}; exit $?`,
    end: 1,
    notUser: THE_SHELLS,
  },
  {
    what: 'words on stderr that look like a kill',
    notUser: THE_SHELLS,
    command: 'echo "Killed: out of memory" >&2; exit 137',
    end: 137,
  },
  {
    what: 'a child in the background that ended in time',
    command: 'true & wait; exit 5',
    end: 5,
  },
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
