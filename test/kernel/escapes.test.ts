// SPDX-License-Identifier: Apache-2.0
// What a command of an ordinary user may try to get out of its cgroup or past its limits, under a daemon of root, and
// what is left of it all when its session has ended: nothing. docs/escapes.md has what is not tried here, and why.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { processStat } from '../../daemon/kernel/proc.ts';
import { metric } from '../daemon/peers.ts';
import { mapEntries, NO_ENTRIES } from '../lib/bpf-maps.ts';
import { agentrmBash, runCommand, TestDaemon, until } from '../lib/daemon.ts';

/** games, who has a name, as newgrp wants it; nobody is whom the daemon's core runs as. */
const UID = 5;
const GID = 60;

const LIMITS = [
  'memory.high',
  'memory.max',
  'memory.swap.max',
  'memory.oom.group',
  'pids.max',
  'cpu.weight',
  'cpu.max',
  'cgroup.freeze',
  'cgroup.subtree_control',
];

/** Somebody's cgroup that the command would rather be in. */
const ELSEWHERE = `/sys/fs/cgroup/elsewhere-${process.pid}`;

const STAY = 'sleep infinity';

interface Attempt {
  readonly what: string;
  /** For bash. `try COMMAND...` notes in the file `won` what ended well; $d is the call's cgroup. */
  readonly command: string;
  /** How many processes it leaves behind, to be found in the call; default 0. */
  readonly stay?: number;
}

const attempts: readonly Attempt[] = [
  { what: 'setsid', command: `setsid ${STAY} & setsid -f ${STAY}`, stay: 2 },
  { what: 'nohup', command: `nohup ${STAY} & disown`, stay: 1 },
  { what: 'a double fork', command: `( ( ${STAY} & ) & )`, stay: 1 },
  {
    what: 'a daemon by the book',
    command: `perl -MPOSIX=setsid -e 'fork and exit; setsid; fork and exit; chdir "/"; close $_ for *STDIN, *STDOUT, *STDERR; exec "sleep", "infinity"'`,
    stay: 1,
  },
  { what: 'nested shells', command: `bash -c "sh -c 'bash -c \\"${STAY} & disown\\"' & wait"`, stay: 1 },
  { what: 'another group', command: `echo '${STAY} & exit' | SHELL=/bin/sh newgrp games`, stay: 1 },
  {
    what: 'a wrapper of its own, with another session and larger limits',
    command: `export AGENTRM_INTENT="memory.max=max memory.high=max pids.max=max" AGENTRM_SESSION=other
setsid -f ${agentrmBash} -c '${STAY}'; AGENTRM_DISABLE=1 ${agentrmBash} -c '${STAY} &'; env -i AGENTRM_SOCKET=$AGENTRM_SOCKET ${agentrmBash} -c '${STAY} &'`,
    stay: 3,
  },
  {
    what: 'cgroup.procs of others',
    command: `for to in /sys/fs/cgroup ${ELSEWHERE} $(dirname $d) $(dirname $(dirname $d)); do
for file in cgroup.procs cgroup.threads; do try put $$ $to/$file; try put 0 $to/$file; done; done`,
  },
  {
    what: 'its limits',
    command: `for at in $d $(dirname $d) $(dirname $(dirname $d)); do
for file in ${LIMITS.join(' ')} memory.min memory.low memory.reclaim cgroup.kill cgroup.type; do try put max $at/$file; try put 1 $at/$file; done
try chmod 666 $at/memory.max; try chown ${UID} $at/memory.max; done`,
  },
  {
    what: 'cgroups of its own',
    command: `for at in $d $(dirname $d) $(dirname $(dirname $d)) /sys/fs/cgroup; do try mkdir $at/mine; try rmdir $d; try mv $d $at/renamed; done`,
  },
  {
    what: 'a user namespace',
    command: `try unshare -Ur sh -c "echo \\$\\$ >/sys/fs/cgroup/cgroup.procs"
try unshare -Ur sh -c "echo max >$d/memory.high"; unshare -Ur setsid -f ${STAY}`,
    stay: 1,
  },
  {
    what: 'a hierarchy of its own in user, mount and cgroup namespaces',
    command: `mkdir mine; unshare -UrCm sh -c 'mount -t cgroup2 none mine && cat mine/cgroup.procs >seen'
grep -q . seen || echo "nothing was mounted" >>won
for put in 'max >mine/memory.high' 'max >mine/memory.max' 'max >mine/pids.max' '0 >mine/cgroup.procs' '+memory >mine/cgroup.subtree_control' '1 >mine/cgroup.freeze'; do
try unshare -UrCm sh -c "mount -t cgroup2 none mine && echo $put"; done
try unshare -UrCm sh -c "mount -t cgroup2 none mine && mkdir mine/below"
try unshare -UrCm sh -c "mount -t cgroup2 none mine && mount -o remount,nodev none mine && echo 0 >mine/../cgroup.procs"
unshare -UrCmpf --kill-child=KILL setsid -f ${STAY}; rmdir mine`,
  },
];

/** Processes of the user. */
function processes(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return (
          statSync(`/proc/${pid}`).uid === UID && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
        );
      } catch {
        return false; // it has ended
      }
    });
}

/** Undefined: it has ended. */
function cgroupOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().slice('0::'.length);
  } catch {
    return undefined;
  }
}

const directories = (path: string) =>
  readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);

describe("a command of an ordinary user under root's daemon", () => {
  const daemon = new TestDaemon();
  const files = () => readdirSync(daemon.dir, { recursive: true }).map(String).sort();
  let filesBefore: string[];
  before(async () => {
    await daemon.start();
    mkdirSync(ELSEWHERE);
    // What the first call of all makes: the database, and what SQLite has beside it.
    const agent = ['-e', 'system @ARGV', agentrmBash, '-c', 'true'];
    // On a busy machine it may run without an answer, which leaves nothing.
    await until(async () => {
      await runCommand('/usr/bin/perl', agent, { env: daemon.env() });
      return (await daemon.calls()).length > 0;
    }, 'a call has its record');
    // All of it: while SQLite makes one, there is a journal beside it for a moment.
    const isStored = async () =>
      existsSync(`${daemon.dir}/state/agentrm.db`) && (await metric(daemon, 'agentrm_store_pending')) === 0;
    await until(isStored, 'the database is there');
    filesBefore = files();
    assert.deepEqual(processes(), [], 'nobody else is that user');
  });
  after(async () => {
    await daemon.close();
    rmdirSync(ELSEWHERE);
  });

  /** A stand-in for an agent, which ends when the test says so, and its call, once all has been tried. */
  const attempt = async (name: string, command: string) => {
    const dir = `${daemon.dir}/${name}`;
    mkdirSync(dir);
    chmodSync(dir, 0o777);
    const call = `d=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); put() { echo $1 >$2; }
try() { if "$@" 2>/dev/null; then echo "$*" >>won; fi; }
echo $d >cgroup; exec 3>&1 >/dev/null; { ${command}
} </dev/null 3>&-; echo tried >&3; exec 3>&-; ${STAY}`;
    const agent = spawn('/usr/bin/perl', ['-e', 'system @ARGV', agentrmBash, '-c', call], {
      env: daemon.env({
        AGENTRM_SESSION: name,
        AGENTRM_INTENT: 'memory.high=256M memory.max=300M pids.max=99',
      }),
      cwd: dir,
      uid: UID,
      gid: GID,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await once(agent.stdout as NodeJS.ReadableStream, 'data');
    return { agent, dir, cgroup: readFileSync(`${dir}/cgroup`, 'utf8').trim() };
  };
  /** As it ends itself; what it ran is not asked. */
  const endSession = async (agent: ChildProcess) => {
    const ended = once(agent, 'exit');
    agent.kill('SIGKILL');
    await ended;
  };

  for (const [number, { what, command, stay = 0 }] of attempts.entries()) {
    test(`${what}: neither out of its cgroup nor past its limits, and gone with its session`, async () => {
      const { agent, cgroup, dir } = await attempt(`try-${number}`, command);
      try {
        assert.equal(existsSync(`${dir}/won`) ? readFileSync(`${dir}/won`, 'utf8') : '', '');
        const path = cgroup.slice('/sys/fs/cgroup'.length);
        assert.match(path, /\/s[0-9a-f]{12}\/c[0-9a-f]{12}$/);
        const sleeping = () =>
          readFileSync(`${cgroup}/cgroup.procs`, 'utf8')
            .trim()
            .split('\n')
            .filter((pid) => processStat(Number(pid))?.comm === 'sleep');
        // Some have been forked only just now.
        await until(() => sleeping().length === stay + 1, 'what it started is inside');
        // The wrapper is not in the call, and neither is the agent.
        const others = processes().filter((pid) => cgroupOf(pid)?.startsWith(path) === false);
        const wrapper = readFileSync(`/proc/${agent.pid}/task/${agent.pid}/children`, 'utf8').trim();
        assert.deepEqual(others.sort(), [agent.pid, Number(wrapper)].sort(), 'nothing else is outside');
        const limits = LIMITS.map((file) => readFileSync(`${cgroup}/${file}`, 'utf8').trim());
        assert.deepEqual(limits, [
          ...['268435456', '314572800', '0', '1', '99', '100', 'max 100000', '0', ''],
        ]);
        assert.deepEqual(directories(cgroup), []);
      } finally {
        await endSession(agent);
      }
      await until(() => processes().length === 0, 'no process is left');
      await until(() => directories(daemon.cgroup).length === 0, 'no cgroup is left');
      assert.deepEqual(mapEntries(daemon.cgroup), NO_ENTRIES);
      assert.deepEqual((await daemon.status()).sessions, 0);
      const left = files().filter((file) => !file.startsWith('try-') && !/-(wal|shm)$/.test(file));
      assert.deepEqual(
        left,
        filesBefore.filter((file) => !/-(wal|shm)$/.test(file)),
      );
    });
  }

  test('root can do all of it, and what it did is gone with the call', async () => {
    const ran = await daemon.run(
      'd=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); mkdir $d/mine && echo $$ >$d/mine/cgroup.procs && echo max >$d/memory.high && echo $d',
    );
    assert.equal(ran.code, 0, ran.stderr);
    await until(() => !existsSync(ran.stdout.trim()), 'its cgroup is gone');
    const out = await daemon.run(
      `echo $$ >${ELSEWHERE}/cgroup.procs; setsid -f ${STAY} >/dev/null 2>&1; cat /proc/self/cgroup`,
    );
    assert.equal(out.stdout.trim(), `0::${ELSEWHERE.slice('/sys/fs/cgroup'.length)}`);
    assert.notEqual(readFileSync(`${ELSEWHERE}/cgroup.procs`, 'utf8'), '', 'what it has started is there');
    writeFileSync(`${ELSEWHERE}/cgroup.kill`, '1');
    await until(() => readFileSync(`${ELSEWHERE}/cgroup.procs`, 'utf8') === '', 'it has ended');
  });
});
