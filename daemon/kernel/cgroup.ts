// SPDX-License-Identifier: Apache-2.0
import { closeSync, readdirSync } from 'node:fs';
import { errnoOf } from '../errors.ts';
import { files } from './files.ts';
import { type Pressure, parseFlatKeyed, parsePressure } from './host.ts';
import type { Native } from './native.ts';

/** What memory.events counts for a cgroup with its descendants, memory.events.local for it alone. */
export interface MemoryEvents {
  readonly high: number;
  readonly max: number;
  readonly oom: number;
  readonly oomKill: number;
  /** Since 5.17; how often all of it was killed at once, as memory.oom.group asks. */
  readonly oomGroupKill: number;
}

export interface PageCache {
  /** That the kernel can take back at once. */
  readonly reclaimableBytes: number;
  /** That it took, and that were needed again, so far; 0 before 5.9. */
  readonly refaultedPages: number;
}

/** Of memory.stat; `kernel` is there since 5.18. */
const HELD = ['anon', 'shmem', 'kernel', 'sock'] as const;

export interface CpuUsage {
  readonly userMs: number;
  readonly systemMs: number;
}

/**
 * One cgroup: an open directory and its inode, which is also the id that BPF knows it by. A path
 * could be another cgroup a moment later; this cannot. Every method throws the kernel's error with
 * path, value and errno.
 */
export class Cgroup {
  readonly id: number;
  readonly name: string;
  readonly #native: Native;
  #fd: number;

  private constructor(native: Native, name: string, fd: number, id: number) {
    this.#native = native;
    this.name = name;
    this.#fd = fd;
    this.id = id;
  }

  /**
   * Its directory.
   * @throws Error EBADF once it is closed: the number may be another cgroup's by then.
   */
  get fd(): number {
    if (this.#fd < 0)
      throw Object.assign(new Error(`EBADF: cgroup ${this.name} is closed`), { code: 'EBADF' });
    return this.#fd;
  }

  static open(native: Native, path: string): Cgroup {
    const fd = native.openDir(path);
    return new Cgroup(native, path, fd, native.inode(fd));
  }

  child(name: string): Cgroup {
    const fd = this.#native.openDirAt(this.fd, name);
    return new Cgroup(this.#native, name, fd, this.#native.inode(fd));
  }

  makeChild(name: string): Cgroup {
    const { fd, id } = this.#native.mkdirAt(this.fd, name);
    return new Cgroup(this.#native, name, fd, id);
  }

  openOrMakeChild(name: string): Cgroup {
    try {
      return this.makeChild(name);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      return this.child(name);
    }
  }

  /** Removes a child that holds no process, and with it what a process in it may have made below. */
  removeChild(name: string): void {
    try {
      this.#native.rmdirAt(this.fd, name);
    } catch (error) {
      if (errnoOf(error) !== 'EBUSY') throw error;
      const child = this.child(name);
      try {
        for (const entry of readdirSync(`/proc/self/fd/${child.fd}`, { withFileTypes: true }))
          if (entry.isDirectory()) child.removeChild(entry.name);
      } finally {
        child.close();
      }
      this.#native.rmdirAt(this.fd, name);
    }
  }

  /**
   * Takes it for this process alone, until it is closed or the process ends, however it does.
   * @returns false: another has it.
   */
  tryLock(): boolean {
    return this.#native.tryLock(this.fd);
  }

  read(file: string): string {
    return this.#native.readAt(this.fd, file);
  }

  write(file: string, value: string): void {
    this.#native.writeAt(this.fd, file, value);
  }

  /** For memory.high and memory.max: lowering them makes the kernel reclaim in the writer. */
  async writeOffThread(file: string, value: string): Promise<void> {
    await this.#native.writeAtAsync(this.fd, file, value);
  }

  getState(name: string): string | null {
    return this.#native.getXattr(this.fd, name);
  }

  setState(name: string, value: string): void {
    this.#native.setXattr(this.fd, name, value);
  }

  /** A number file; `max` is Infinity. */
  readNumber(file: string): number {
    const text = this.read(file).trim();
    return text === 'max' ? Number.POSITIVE_INFINITY : Number(text);
  }

  /** The same; undefined where there is no such file, as the hierarchy's own root has no limits. */
  numberIfAny(file: string): number | undefined {
    try {
      return this.readNumber(file);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  populated(): boolean {
    return parseFlatKeyed(this.read(files.events)).get('populated') === 1;
  }

  /** Pids in this cgroup itself, not below it. */
  procs(): number[] {
    return this.read(files.procs).split('\n').filter(Boolean).map(Number);
  }

  /** @param below with those of its descendants, also of removed ones. */
  memoryEvents({ below = false } = {}): MemoryEvents {
    const values = parseFlatKeyed(this.read(below ? files.memoryEvents : files.memoryEventsLocal));
    return {
      high: values.get('high') ?? 0,
      max: values.get('max') ?? 0,
      oom: values.get('oom') ?? 0,
      oomKill: values.get('oom_kill') ?? 0,
      oomGroupKill: values.get('oom_group_kill') ?? 0,
    };
  }

  /** memory.stat, the dearest of the files at some 7 us; empty if the cgroup was removed under us. */
  memoryStat(): ReadonlyMap<string, number> {
    try {
      return parseFlatKeyed(this.read(files.memoryStat));
    } catch {
      return new Map();
    }
  }

  /** Page cache that the kernel can take back at once: without what lies on tmpfs, which has nowhere to go. */
  reclaimableBytes(): number {
    return this.pageCache().reclaimableBytes;
  }

  /**
   * What the kernel cannot take back at once, all of it from one file: memory.current is read a moment before or after, and
   * while page cache is being reclaimed their difference seems to grow. Late by 64 pages for each CPU (the threshold from
   * which memory.stat is brought up to date) and 2 s at the most.
   */
  heldBytes(): number {
    const stat = this.memoryStat();
    return HELD.reduce((sum, key) => sum + (stat.get(key) ?? 0), 0);
  }

  pageCache(): PageCache {
    const stat = this.memoryStat();
    return {
      reclaimableBytes: (stat.get('active_file') ?? 0) + (stat.get('inactive_file') ?? 0),
      refaultedPages: stat.get('workingset_refault_file') ?? 0,
    };
  }

  /** Nothing where PSI is off: the file is not there, or says so. */
  memoryPressure(): Pressure {
    try {
      return parsePressure(this.read(files.memoryPressure));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EOPNOTSUPP') return parsePressure('');
      throw error;
    }
  }

  cpuUsage(): CpuUsage {
    const values = parseFlatKeyed(this.read(files.cpuStat));
    return {
      userMs: Math.round((values.get('user_usec') ?? 0) / 1000),
      systemMs: Math.round((values.get('system_usec') ?? 0) / 1000),
    };
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}
