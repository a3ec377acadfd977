// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { CgroupRoot } from '../kernel/tree.ts';
import type { Log } from '../log.ts';
import type { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import { type Escaped, EscapeWatch } from './escape.ts';
import { saveOrLog } from './saved-state.ts';

export interface EscapeReportDeps {
  readonly root: CgroupRoot | undefined;
  readonly cooperative: boolean;
  readonly log: Log;
  readonly emit: Emit;
}

/** Tells of processes that leave their call, where they can. */
export class EscapeReport {
  readonly #deps: EscapeReportDeps;
  readonly #watch: EscapeWatch;
  #closed = false;

  constructor(deps: EscapeReportDeps) {
    this.#deps = deps;
    this.#watch = new EscapeWatch((call, escaped) => this.#escaped(call, escaped));
  }

  /** Begins to watch a call, before its command is started or when it has been placed. */
  add(call: Call): void {
    // Whoever owns the cgroups above may leave its own.
    const { cooperative, root } = this.#deps;
    if (!cooperative && call.sessionCgroup.root === root) return;
    if (this.#closed || call.phase === 'gone') return;
    this.#guarded(call, () => this.#watch.add(call));
  }

  /** Looks at one call now, because something about it has changed. */
  look(call: Call): void {
    this.#guarded(call, () => this.#watch.look(call));
  }

  remove(call: Call): void {
    this.#watch.remove(call);
  }

  close(): void {
    this.#closed = true;
    this.#watch.close();
  }

  #guarded(call: Call, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#deps.log.error({ err: error, call: call.id }, 'processes of call not looked up');
    }
  }

  #escaped(call: Call, { pid, comm, cgroup }: Escaped): void {
    // One line a call: a loop can do this thousands of times.
    if (!call.decisions.some(({ action }) => action === 'escaped'))
      this.#deps.log.warn({ call: call.id, pid, comm, cgroup }, 'a process has left its call');
    call.record({ action: 'escaped', reason: `process ${pid} (${comm}) moved itself to ${cgroup}` }, nowMs());
    this.#deps.emit('escaped', about(call), { pid, comm, cgroup });
    saveOrLog(call, this.#deps.log);
  }
}
