// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { files } from '../../daemon/kernel/files.ts';
import { type Native, native } from '../../daemon/kernel/native.ts';
import { type CgroupRoot, openRoot } from '../../daemon/kernel/tree.ts';

/** What a fresh cgroup's files say, as far as the daemon reads or writes them. */
const fresh: Readonly<Record<string, string>> = {
  [files.controllers]: 'cpu io memory pids\n',
  [files.subtreeControl]: '',
  [files.procs]: '',
  [files.events]: 'populated 0\nfrozen 0\n',
  [files.freeze]: '0\n',
  [files.kill]: '',
  [files.memoryCurrent]: '0\n',
  [files.memoryPeak]: '4096\n',
  [files.memoryLow]: '0\n',
  [files.memoryHigh]: 'max\n',
  [files.memoryMax]: 'max\n',
  [files.memoryOomGroup]: '0\n',
  [files.memoryEvents]: 'low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n',
  [files.memoryEventsLocal]: 'low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n',
  [files.memoryPressure]: 'some avg10=0.00 total=0\nfull avg10=0.00 total=0\n',
  [files.memoryStat]: 'anon 0\nactive_file 0\ninactive_file 0\n',
  [files.swapMax]: 'max\n',
  [files.cpuWeight]: '100\n',
  [files.cpuIdle]: '0\n',
  [files.cpuMax]: 'max 100000\n',
  [files.cpuStat]: 'user_usec 2000\nsystem_usec 1000\n',
  [files.ioWeight]: '100\n',
  [files.pidsMax]: 'max\n',
  [files.pidsCurrent]: '0\n',
  [files.pidsEvents]: 'max 0\n',
};

export interface PlainTree {
  readonly dir: string;
  readonly root: CgroupRoot;
  readonly native: Native;
}

/** Fills a directory with the files that the kernel puts into a cgroup. */
export function fillCgroup(path: string): void {
  for (const [name, text] of Object.entries(fresh)) writeFileSync(join(path, name), text);
}

/**
 * A tree of ordinary directories that looks like cgroup v2, with the real addon over it; only mkdir and
 * rmdir do what the kernel does by itself: they bring and take a cgroup's files. Gone after the test.
 */
export function plainTree(t: TestContext, changes: Partial<Native> = {}): PlainTree {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-tree-'));
  const addon: Native = {
    ...native(),
    mkdirAt(parent, name) {
      const made = native().mkdirAt(parent, name);
      fillCgroup(join(readlinkSync(`/proc/self/fd/${parent}`), name));
      return made;
    },
    rmdirAt(parent, name) {
      const path = join(readlinkSync(`/proc/self/fd/${parent}`), name);
      for (const file of Object.keys(fresh)) rmSync(join(path, file), { force: true });
      native().rmdirAt(parent, name);
    },
    // An ordinary file has no events that could be polled for.
    watch: (fd, events, callback) =>
      events === 'priority' ? { close: () => {} } : native().watch(fd, events, callback),
    ...changes,
  };
  fillCgroup(dir);
  mkdirSync(join(dir, 'proc/self'), { recursive: true });
  writeFileSync(join(dir, 'proc/self/mountinfo'), `30 24 0:26 / ${dir} rw - cgroup2 cgroup2 rw\n`);
  const root = openRoot(addon, join(dir, 'agentrm'), join(dir, 'proc'));
  t.after(() => {
    root.cgroup.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return { dir, root, native: addon };
}
