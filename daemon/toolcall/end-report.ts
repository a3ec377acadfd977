// SPDX-License-Identifier: Apache-2.0
import { nowMs } from '../clock.ts';
import type { Config } from '../config/schema.ts';
import type { CallRecord } from '../control/types.ts';
import { messageOf } from '../errors.ts';
import type { Enforcer } from '../kernel/enforcer.ts';
import type { Log } from '../log.ts';
import type { Call } from './call.ts';
import { about, type Emit } from './call-events.ts';
import type { Feedback } from './feedback.ts';
import type { Origin } from './learning.ts';
import { type Ending, finish, finishWithoutFigures } from './record.ts';

export interface EndReportDeps {
  readonly enforcer: Enforcer | undefined;
  readonly config: () => Config;
  readonly feedback: Feedback;
  readonly log: Log;
  readonly emit: Emit;
  /** @param origin by what runs of its command are known again, if anything may be kept of it. */
  readonly onFinished: (record: CallRecord, origin: Origin | null) => void;
}

/** Takes down how a call has ended, and tells of it. */
export class EndReport {
  readonly #deps: EndReportDeps;

  constructor(deps: EndReportDeps) {
    this.#deps = deps;
  }

  /** @returns the lines for the agent, none if there is nothing to tell. */
  make(call: Call, ending: Ending): string[] {
    const { enforcer, feedback, log } = this.#deps;
    let lines: string[] = [];
    try {
      if (enforcer === undefined) throw new Error('nothing enforces');
      const { leftovers, report } = this.#deps.config();
      const settings = { ...report, leftoversKept: leftovers === 'keep' };
      const record = finish(call, ending, enforcer, nowMs(), settings);
      if (record.report !== null) {
        lines = [record.report.line];
        // Whoever has killed the wrapper, as an agent does at its own timeout, need not be told.
        if (call.feedbackKey !== undefined && record.outcome !== 'lost') {
          feedback.ended(call.feedbackKey, record.report.line);
        }
      }
      this.#tell(call, record, call.origin);
      log.debug({ call: call.id, outcome: record.outcome, durationMs: record.durationMs }, 'call ended');
    } catch (error) {
      // The cgroup was removed under us: the command has run, only its figures are lost.
      log.error({ err: error, call: call.id }, 'call ended without figures');
      this.#deps.emit('degraded', about(call), { error: messageOf(error) });
      // Nothing can be learned of a run without figures.
      this.#tell(call, finishWithoutFigures(call, ending, nowMs()), null);
    }
    return lines;
  }

  #tell(call: Call, record: CallRecord, origin: Origin | null): void {
    this.#deps.onFinished(record, origin);
    this.#deps.emit('call-end', about(call), { record });
  }
}
