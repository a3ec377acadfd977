// SPDX-License-Identifier: Apache-2.0
import type { Config } from '../config/schema.ts';
import { errnoOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { SessionRegistry } from '../session/registry.ts';
import { ownersOf } from './agent.ts';
import type { Call } from './call.ts';
import type { Controller } from './controller.ts';
import type { EndReport } from './end-report.ts';
import type { EscapeReport } from './escape-report.ts';
import type { Ending } from './record.ts';
import { saveOrLog } from './saved-state.ts';
import type { SessionCgroups } from './session-cgroups.ts';

/**
 * How long an ended command's last processes may take to die before they count as left behind. The
 * members of a pipeline end within microseconds of each other; the wrapper waits 50 ms for its answer.
 */
const DYING_MS = 20;

/** A cgroup that cannot be removed because a task is still exiting, or for want of memory, is tried again. */
const RETRY_MS = 1000;

export interface EndingsDeps {
  readonly controller: Pick<Controller, 'kill' | 'reordered' | 'remove'> | undefined;
  readonly sessions: Pick<SessionRegistry, 'callEnding' | 'callEnded'>;
  readonly cgroups: Pick<SessionCgroups, 'weigh' | 'save' | 'removeIfOver'>;
  readonly report: EndReport;
  readonly escapes: Pick<EscapeReport, 'look' | 'remove'>;
  readonly config: () => Config;
  readonly log: Log;
  /** Its command has ended: nothing is asked of its wrapper any more. */
  readonly onEnded: (call: Call) => void;
  /** Its end has been answered: it keeps its session alive no more. */
  readonly onAnswered: (call: Call) => void;
  /** Nothing of it is left. */
  readonly onGone: (call: Call) => void;
}

/** The ends of calls: first the command, then what it has left behind, then the cgroup. */
export class Endings {
  readonly #deps: EndingsDeps;
  /** Calls whose last processes are dying, and what ends the wait for them. */
  readonly #dying = new Map<Call, () => void>();
  #closed = false;

  constructor(deps: EndingsDeps) {
    this.#deps = deps;
  }

  /**
   * The command has ended.
   * @param answer takes the lines that the agent should read, none if there is nothing to tell. Called
   *   at once, or as soon as it is clear whether the command left processes behind.
   */
  end(call: Call, ending: Ending, answer: (lines: readonly string[]) => void = () => {}): void {
    if (call.phase !== 'live') {
      answer([]);
      return;
    }
    this.#deps.escapes.look(call);
    call.phase = 'ending';
    const settle = (): void => {
      clearTimeout(timer);
      this.#dying.delete(call);
      answer(this.#finish(call, ending));
    };
    const timer = setTimeout(settle, DYING_MS);
    this.#dying.set(call, settle);
    if (!isPopulated(call)) settle();
  }

  /** Its wrapper will not tell how it ends. */
  lose(call: Call): void {
    if (call.phase !== 'live') return;
    this.#deps.controller?.kill(call, 'wrapper-lost', 'its wrapper has gone');
    this.end(call, {});
  }

  /** The last process of a call's cgroup has gone. */
  emptied(call: Call): void {
    if (call.phase === 'live') this.#deps.escapes.look(call);
    if (call.phase === 'lingering') this.tidy(call);
    else this.#dying.get(call)?.();
  }

  /** Removes a call that has ended, or leaves it until its last process has. */
  tidy(call: Call): void {
    if (this.#closed || call.phase !== 'lingering') return;
    const { controller, cgroups, config, log } = this.#deps;
    try {
      if (call.cgroup.populated()) {
        const orphaned = call.killCode === undefined && config().leftovers === 'kill';
        if (orphaned) controller?.kill(call, 'leftover', 'its command has ended');
        controller?.reordered();
        saveOrLog(call, log);
        return;
      }
      call.sessionCgroup.cgroup.removeChild(call.id);
    } catch (error) {
      // ENOENT, ENODEV: somebody removed it. EBUSY: an exit is still under way, which may not be reported.
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENODEV') {
        if (errnoOf(error) !== 'EBUSY') log.error({ err: error, call: call.id }, 'cgroup not removed');
        setTimeout(() => this.tidy(call), RETRY_MS).unref();
        return;
      }
    }
    call.phase = 'gone';
    this.#deps.escapes.remove(call);
    controller?.remove(call);
    this.#deps.onGone(call);
    call.cgroup.close();
    cgroups.weigh(call.session, call.sessionCgroup);
    cgroups.removeIfOver(call.session);
  }

  /** Answers for those whose last processes are dying, and tidies for the last time. */
  close(calls: Iterable<Call>): void {
    for (const settle of [...this.#dying.values()]) settle();
    for (const call of [...calls]) this.tidy(call);
    this.#closed = true;
  }

  /** @returns the lines for the agent. */
  #finish(call: Call, ending: Ending): string[] {
    const { sessions, cgroups, report } = this.#deps;
    call.phase = 'lingering';
    this.#deps.onEnded(call);
    sessions.callEnding(call.session, ownersOf(call.ancestors, call.agentProcess));
    const lines = report.make(call, ending);
    // The wrapper waits for the answer; the rest can be done after it.
    setImmediate(() => {
      this.tidy(call);
      if (this.#closed) return;
      this.#deps.onAnswered(call);
      sessions.callEnded(call.session);
      cgroups.save(call.session);
    });
    return lines;
  }
}

function isPopulated(call: Call): boolean {
  try {
    return call.cgroup.populated();
  } catch {
    return false; // removed under us
  }
}
