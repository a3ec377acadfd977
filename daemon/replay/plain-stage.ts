// SPDX-License-Identifier: Apache-2.0
import type { Cgroup } from '../kernel/cgroup.ts';
import { files } from '../kernel/files.ts';
import type { Native } from '../kernel/native.ts';
import type { SessionLimits } from './arms.ts';
import { RunCgroup } from './cgroups.ts';
import { ReplayProcess, replayProgram } from './process.ts';
import type { Held, Stage } from './stage.ts';

/** Sessions in cgroups whose limits are set once; those that have to wait are frozen until the others are done. */
export class PlainStage implements Stage {
  readonly failed = new Promise<never>(() => {});
  readonly #run: RunCgroup;
  readonly #limits: readonly SessionLimits[];
  readonly #cgroups: Cgroup[] = [];
  readonly #running = new Set<number>();
  #thawedNs = 0n;

  /** @throws AgentrmError if there is no cgroup v2 with memory to be had. */
  constructor(native: Native, limitBytes: number, limits: readonly SessionLimits[]) {
    this.#limits = limits;
    this.#run = new RunCgroup(native, limitBytes);
  }

  open(index: number): ReplayProcess {
    const limits = this.#limits[index];
    if (limits === undefined) throw new Error(`no session ${index}`);
    const cgroup = this.#run.session(index, limits);
    this.#cgroups[index] = cgroup;
    const process = new ReplayProcess([replayProgram]);
    // It holds nothing yet: all that counts is charged where it is from now on.
    cgroup.write(files.procs, String(process.pid));
    if (!limits.waits) this.#running.add(index);
    return process;
  }

  async begin(): Promise<void> {
    for (const cgroup of this.#waiting()) cgroup.write(files.freeze, '1');
  }

  ended(index: number): void {
    if (!this.#running.delete(index) || this.#running.size > 0) return;
    this.#thawedNs = process.hrtime.bigint();
    for (const cgroup of this.#waiting()) cgroup.write(files.freeze, '0');
  }

  async held(index: number, startNs: bigint): Promise<Held> {
    const waited = this.#limits[index]?.waits ? Number(this.#thawedNs - startNs) / 1e6 : 0;
    const stalledUs = this.#cgroups[index]?.memoryPressure().someTotalUs ?? 0;
    return { frozenMs: Math.max(0, waited), throttledMs: stalledUs / 1000 };
  }

  async close(): Promise<void> {
    await this.#run.kill();
    this.#run.remove();
  }

  #waiting(): Cgroup[] {
    return this.#cgroups.filter((_, index) => this.#limits[index]?.waits);
  }
}
