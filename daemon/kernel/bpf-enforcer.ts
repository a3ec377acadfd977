// SPDX-License-Identifier: Apache-2.0
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { distDir } from '../own-program.ts';
import type { Cgroup } from './cgroup.ts';
import type {
  Enforcer,
  EnforcerCounters,
  EnforcerEvents,
  Line,
  StoppedTask,
  ThrottleStats,
} from './enforcer.ts';
import { files } from './files.ts';
import type { Bpf, BpfEvent, Native } from './native.ts';
import type { CgroupRoot } from './tree.ts';

/** Bit 0 of a policy's flags in bpf/abi.h: stop tasks, do not only count. */
const ENFORCE = 1;

/** Enforcement in the kernel: the BPF programs stop a call at its line, this class carries the news. */
export class BpfEnforcer implements Enforcer {
  readonly mode = 'bpf';
  readonly #bpf: Bpf;

  /**
   * Loads the programs, or adopts those that an earlier daemon left pinned for this root.
   * @throws Error with errno if the kernel refuses; the caller falls back to user space.
   */
  constructor(native: Native, root: CgroupRoot, pinRoot: string, events: EnforcerEvents) {
    const pinDir = pinDirOf(pinRoot, native, root);
    mkdirSync(dirname(pinDir), { recursive: true, mode: 0o700 });
    this.#bpf = native.openBpf({
      object: `${distDir}agentrm.bpf.o`,
      pinDir,
      rootCgroupId: root.cgroup.id,
      callLevel: root.level + 2,
      events: (batch) => {
        for (const event of batch) dispatch(event, events);
      },
    });
    this.#bpf.beat();
    this.#bpf.samplerStart();
  }

  get hooks(): readonly string[] {
    return this.#bpf.hooks;
  }

  set(cgroup: Cgroup, line: Line, cycle: number): void {
    this.#bpf.setPolicy(cgroup.id, { ...line, flags: ENFORCE, cycle });
  }

  forget(cgroup: Cgroup): void {
    this.#bpf.deletePolicy(cgroup.id);
  }

  stats(cgroup: Cgroup): ThrottleStats {
    const stats = this.#bpf.stats(cgroup.id) ?? { highEvents: 0, throttledMs: 0, stops: 0, firstStopNs: 0n };
    return { ...stats, throttledBy: 'sleeps' };
  }

  stoppedTasks(cgroup: Cgroup): readonly StoppedTask[] {
    return this.#bpf.stops(cgroup.id);
  }

  usageBytes(cgroup: Cgroup): number {
    const sampled = this.#bpf.usage(cgroup.id);
    return sampled >= 0 ? sampled : cgroup.readNumber(files.memoryCurrent);
  }

  counters(): EnforcerCounters {
    return this.#bpf.counters();
  }

  beat(): void {
    this.#bpf.beat();
  }

  close(remove: boolean): void {
    if (remove) this.#bpf.unpin();
    this.#bpf.close();
  }
}

/**
 * Where one root's programs and maps are pinned: apart from another daemon's, and from those of another
 * layout of the maps.
 */
export function pinDirOf(pinRoot: string, native: Native, root: CgroupRoot): string {
  return `${pinRoot}/v${native.abi().version}-${root.cgroup.id}`;
}

function dispatch(event: BpfEvent, events: EnforcerEvents): void {
  if (event.kind === 'oom') events.oom(event);
  else if (event.kind === 'emptied') events.emptied(event.cgroupId);
  else if (event.reason !== '') events.stop({ ...event, reason: event.reason });
}
