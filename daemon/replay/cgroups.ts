// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { errnoOf } from '../errors.ts';
import { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import type { Native, Watch } from '../kernel/native.ts';
import { type CgroupRoot, openRoot } from '../kernel/tree.ts';
import type { SessionLimits } from './arms.ts';

/** Where cgroup v2 is on every distribution that has it alone. */
const HIERARCHY = '/sys/fs/cgroup';

let made = 0;

/** The cgroup of one run, with a common limit; sessions get theirs below it. */
export class RunCgroup {
  readonly path: string;
  readonly #native: Native;
  readonly #root: CgroupRoot;
  readonly #children: Cgroup[] = [];

  /**
   * @param limitBytes memory.max of all sessions together; Infinity: none.
   * @throws AgentrmError AGENTRM_ERR_CGROUP if there is no cgroup v2 with memory to be had.
   */
  constructor(native: Native, limitBytes: number) {
    made += 1;
    this.path = `${HIERARCHY}/agentrm-replay-${process.pid}-${made}`;
    this.#native = native;
    this.#root = openRoot(native, this.path);
    try {
      this.#root.cgroup.write(files.memoryMax, limitOf(limitBytes));
      withoutSwap(this.#root.cgroup);
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  /** A session's own cgroup, below. */
  session(index: number, { maxBytes, highBytes }: SessionLimits): Cgroup {
    const cgroup = this.#root.cgroup.makeChild(`session-${index + 1}`);
    this.#children.push(cgroup);
    cgroup.write(files.memoryMax, limitOf(maxBytes));
    cgroup.write(files.memoryHigh, limitOf(highBytes));
    return cgroup;
  }

  /** Kills whatever is in it, or below; resolves when the kernel says that nothing is left. */
  async kill(): Promise<void> {
    const { cgroup } = this.#root;
    cgroup.write(files.kill, '1');
    const eventsFd = this.#native.openAt(cgroup.fd, files.events, false);
    let watch: Watch | undefined;
    try {
      await new Promise<void>((resolve, reject) => {
        const look = () => {
          try {
            if (!cgroup.populated()) resolve();
          } catch (error) {
            reject(error);
          }
        };
        watch = this.#native.watch(eventsFd, 'priority', look);
        look();
      });
    } finally {
      watch?.close();
      closeSync(eventsFd);
    }
  }

  /** Removes it with all that is below; nothing may live in it. */
  remove(): void {
    for (const child of this.#children) child.close();
    this.#root.cgroup.close();
    const parent = Cgroup.open(this.#native, dirname(this.path));
    try {
      parent.removeChild(basename(this.path));
    } finally {
      parent.close();
    }
  }
}

function limitOf(bytes: number): string {
  return bytes === Number.POSITIVE_INFINITY ? 'max' : String(bytes);
}

/** What does not fit must not go to the disk instead. The file is absent without CONFIG_SWAP. */
function withoutSwap(cgroup: Cgroup): void {
  try {
    cgroup.write(files.swapMax, '0');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
