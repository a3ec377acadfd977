// SPDX-License-Identifier: Apache-2.0
// What kernel-notes/ says of the kernel and AgentRM builds on, asked of the kernel itself, without any of
// AgentRM's own code: if one of these fails on a new kernel, the page named there has to be thought over again.
import assert from 'node:assert/strict';
import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { files } from '../../daemon/kernel/files.ts';
import { loadProgram } from '../lib/daemon.ts';
import { Cgroup, ended, MiB, native, stateOf, until } from './bpf-lab.ts';

const hierarchy = '/sys/fs/cgroup';
const skip = reasonToSkip();
/** A page-cache file for readers: the largest that is sure to be here. */
const largeFile = process.execPath;

describe('what kernel-notes say of the kernel', { skip, timeout: 300_000 }, () => {
  let parent: Cgroup;
  let cgroup: Cgroup;

  beforeEach(() => {
    new Cgroup(hierarchy).delegate();
    parent = new Cgroup(`${hierarchy}/notes-${process.pid}`).delegate();
    cgroup = parent.child('c');
    // Without this an allocator may go on in swap where the host has some.
    if (existsSync(`${cgroup.path}/${files.swapMax}`)) cgroup.write(files.swapMax, 0);
  });
  afterEach(() => parent.remove());

  function usage(of = cgroup): number {
    return of.number(files.memoryCurrent);
  }

  function event(name: string, file: string = files.memoryEventsLocal, of = cgroup): number {
    return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(of.read(file))?.[1]);
  }

  function frozen(): boolean {
    return /^frozen 1$/m.test(cgroup.read(files.events));
  }

  describe('memory-high.md', () => {
    it('raising memory.high does not wake a task that sleeps in the throttle', async () => {
      cgroup.write(files.memoryHigh, 16 * MiB);
      const child = cgroup.spawn(loadProgram, ['--bytes', '64M', 'procs', '1']);
      await until(() => usage() > 16.3 * MiB);
      // So far over it, the next sleep is the longest there is: 2 s.
      cgroup.write(files.memoryHigh, MiB);
      const pid = await sleeper();
      const before = usage();
      cgroup.write(files.memoryHigh, 'max');
      // A task that was woken would have used all its memory in less than this.
      for (let look = 0; look < 20; look++) {
        assert.equal(stateOf(pid), 'D');
        await pause(5);
      }
      assert.equal(usage(), before);
      assert.equal(await ended(child), 0);
    });

    it('huge pages of one system call pass memory.high, small ones do not', async (context) => {
      if (!readFileSync('/sys/kernel/mm/transparent_hugepage/enabled', 'utf8').includes('[always]')) {
        return context.skip('huge pages are not on for everybody here');
      }
      const small = parent.child('small');
      for (const one of [cgroup, small]) one.write(files.memoryHigh, 16 * MiB);
      small.spawn(loadProgram, ['--bytes', '128M', 'populate']);
      cgroup.spawn(loadProgram, ['--thp', '--bytes', '128M', 'populate']);
      await until(() => usage() > 32 * MiB && usage(small) > 16 * MiB);
      assert.ok(usage(small) < 24 * MiB, `${usage(small) / MiB} MiB with small pages`);
    });

    it('memory.events counts reclaims over memory.high that succeed', async () => {
      writeFileSync('/proc/sys/vm/drop_caches', '1');
      cgroup.write(files.memoryHigh, 16 * MiB);
      assert.equal(await ended(cgroup.spawn(loadProgram, ['--bytes', '4K', 'read', largeFile])), 0);
      assert.ok(event('high') > 0);
      assert.ok(cgroup.number(files.memoryPeak) < 24 * MiB);
    });

    it('memory.max written under the usage kills, even in a frozen cgroup', async () => {
      const child = cgroup.spawn('perl', ['-e', '$x = "x" x $ARGV[0]; sleep 4321', String(32 * MiB)]);
      await until(() => usage() > 32 * MiB);
      cgroup.write(files.freeze, 1);
      await until(frozen);
      cgroup.write(files.memoryMax, 8 * MiB);
      assert.equal(await ended(child), 'SIGKILL');
      assert.ok(event('oom_kill') > 0);
    });
  });

  describe('handover.md', () => {
    it('a stopped task counts as frozen, and SIGCONT under the freezer lets it run no further', async () => {
      const child = cgroup.spawn('/bin/sh', ['-c', 'while :; do :; done']);
      const pid = await member();
      process.kill(pid, 'SIGSTOP');
      await until(() => stateOf(pid) === 'T');
      cgroup.write(files.freeze, 1);
      await until(frozen);
      assert.equal(stateOf(pid), 'T');
      process.kill(pid, 'SIGCONT');
      await until(() => stateOf(pid) === 'S');
      const before = cpuTicks(pid);
      await pause(100);
      assert.ok(frozen());
      assert.equal(cpuTicks(pid), before);
      cgroup.write(files.freeze, 0);
      await until(() => cpuTicks(pid) > before);
      child.kill('SIGKILL');
    });

    it('a parent that waits with WUNTRACED sees the stop of a child, one with a plain wait does not', async () => {
      // A shell with job control is such a parent.
      const shells = ['set -m', ':'].map((first) =>
        cgroup.spawn('/bin/bash', ['-c', `exec 2>&1; ${first}; sleep 4321; echo went on`], 'pipe'),
      );
      const said = shells.map((shell) => {
        let text = '';
        shell.stdout?.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        return () => text;
      });
      const sleepers = () => cgroup.pids().filter((pid) => commandOf(pid).startsWith('sleep'));
      await until(() => sleepers().length === 2);
      for (const pid of sleepers()) process.kill(pid, 'SIGSTOP');
      // What it has said may come after its end, and the stopped child keeps its pipe open.
      await until(() => /Stopped.*went on/s.test(said[0]?.() ?? ''));
      await ended(shells[0] as ChildProcess);
      assert.equal(shells[1]?.exitCode, null);
      assert.equal(said[1]?.(), '');
    });

    it('SIGTERM ends a frozen task, unless the task has a handler: that waits for the thaw', async () => {
      const plain = cgroup.spawn('/bin/sleep', ['4321']);
      const handling = cgroup.spawn(
        '/bin/bash',
        ['-c', 'trap "exit 7" TERM; sleep 4321 & echo; wait'],
        'pipe',
      );
      await new Promise((resolve) => handling.stdout?.once('data', resolve));
      await until(() => cgroup.pids().some((pid) => commandOf(pid).startsWith('/bin/sleep')));
      cgroup.write(files.freeze, 1);
      await until(frozen);
      for (const pid of cgroup.pids()) process.kill(pid, 'SIGTERM');
      assert.equal(await ended(plain), 'SIGTERM');
      assert.equal(handling.exitCode, null);
      cgroup.write(files.freeze, 0);
      assert.equal(await ended(handling), 7);
    });
  });

  describe('placement.md', () => {
    const clone3 = `
      sysopen(my $dir, $ARGV[0], 0200000) or die "open: $!";
      my $pid = syscall(435, pack("Q11", 0x200000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, fileno $dir), 88);
      die "clone3: $!\\n" if $pid < 0;
      exec "cat", "/proc/self/cgroup" unless $pid;
      waitpid $pid, 0;
    `;
    const nobody = ['--reuid=1000', '--regid=1000', '--clear-groups'];

    function intoCgroup(...options: string[]) {
      return spawnSync('setpriv', [...options, 'perl', '-e', clone3, cgroup.path], { encoding: 'utf8' });
    }

    /** The line of /proc/PID/cgroup of a process that is in the cgroup. */
    function membership(): string {
      return `0::${cgroup.path.slice(hierarchy.length)}\n`;
    }

    it('a process is born in the cgroup whose descriptor clone3 is given', () => {
      assert.ok(intoCgroup('--reuid=0').stdout.includes(membership()));
    });

    it('that needs write permission, for which CAP_DAC_OVERRIDE alone is enough', () => {
      const able = ['--inh-caps=+dac_override', '--ambient-caps=+dac_override'];
      assert.match(intoCgroup(...nobody).stderr, /^clone3: Permission denied/);
      assert.ok(intoCgroup(...nobody, ...able).stdout.includes(membership()));
    });

    it('nothing is born alive in a cgroup that was killed once, though it can be moved there and fork', async () => {
      cgroup.write('cgroup.kill', 1);
      assert.deepEqual([intoCgroup('--reuid=0').stdout, intoCgroup('--reuid=0').status], ['', 0]);
      const moved = cgroup.spawn('/bin/bash', ['-c', '(exit 7); exit $?']);
      assert.equal(await ended(moved), 7);
    });
  });

  describe('oom-evidence.md', () => {
    it('memory.events counts for all below, memory.events.local for one cgroup', async () => {
      cgroup.write(files.memoryMax, 8 * MiB);
      assert.notEqual(await ended(cgroup.spawn(loadProgram, ['--bytes', '32M', 'procs', '1'])), 0);
      assert.ok(event('oom_kill') > 0);
      assert.ok(event('oom_kill', 'memory.events', parent) > 0);
      assert.equal(event('oom_kill', files.memoryEventsLocal, parent), 0);
    });

    it('memory.oom.group takes the innocent along', async () => {
      cgroup.write(files.memoryMax, 8 * MiB);
      cgroup.write(files.memoryOomGroup, 1);
      const innocent = cgroup.spawn('/bin/sleep', ['4321']);
      await member();
      cgroup.spawn(loadProgram, ['--bytes', '32M', 'procs', '1']);
      assert.equal(await ended(innocent), 'SIGKILL');
    });

    it('death by SIGKILL is no evidence of the OOM killer', async () => {
      assert.equal(await ended(cgroup.spawn('/bin/sh', ['-c', 'kill -9 $$'])), 'SIGKILL');
      assert.equal(event('oom_kill'), 0);
    });

    it('pages of a file in memory stay charged after the writer and its cgroup are gone', async () => {
      const path = `/dev/shm/notes-${process.pid}`;
      const child = cgroup.spawn('/bin/dd', [
        'if=/dev/zero',
        `of=${path}`,
        'bs=1M',
        'count=16',
        'status=none',
      ]);
      assert.equal(await ended(child), 0);
      assert.ok(usage() > 16 * MiB);
      await until(() => cgroup.pids().length === 0);
      rmdirSync(cgroup.path);
      assert.ok(usage(parent) > 16 * MiB);
      rmSync(path);
      await until(() => usage(parent) < 16 * MiB);
    });
  });

  it('matrix.md: the cgroup files that the daemon uses are there', () => {
    parent.write(files.subtreeControl, '+cpu +io');
    // memory.swap.max needs CONFIG_SWAP and io.weight a policy that has it; the daemon does without them.
    const optional: string[] = [files.swapMax, files.ioWeight];
    for (const name of Object.values(files).filter((file) => !optional.includes(file))) {
      assert.ok(existsSync(`${cgroup.path}/${name}`), name);
    }
  });

  /** The first process of the cgroup that is what it was started as, not the shell that got it there. */
  async function member(): Promise<number> {
    await until(() => cgroup.pids().some((pid) => !commandOf(pid).includes('cgroup.procs')));
    return cgroup.pids()[0] ?? 0;
  }

  /** The task that sleeps in the throttle, once it has got nowhere for a while. */
  async function sleeper(): Promise<number> {
    for (;;) {
      const before = usage();
      await pause(100);
      const pid = cgroup.pids().find((one) => stateOf(one) === 'D');
      if (pid !== undefined && usage() === before) return pid;
    }
  }
});

function reasonToSkip(): string | false {
  if (process.getuid?.() !== 0) return 'needs root';
  try {
    return native.isCgroup2(hierarchy) ? false : `${hierarchy} is not cgroup v2`;
  } catch {
    return `${hierarchy} is not there`;
  }
}

/** Lets time pass; what is asserted afterwards holds however long it was. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
  } catch {
    return ''; // it has ended
  }
}

/** CPU time of a process in clock ticks: utime and stime of /proc/PID/stat. */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
