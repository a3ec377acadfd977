// SPDX-License-Identifier: Apache-2.0
import type { Config } from '../config/schema.ts';
import { errnoOf } from '../errors.ts';
import type { Enforcer } from '../kernel/enforcer.ts';
import type { Call } from './call.ts';

/** The enforcer, which knows cgroups and lines, as it is asked about calls. */
export class CallEnforcer {
  readonly #enforcer: Enforcer;
  readonly #config: () => Config;

  constructor(enforcer: Enforcer, config: () => Config) {
    this.#enforcer = enforcer;
    this.#config = config;
  }

  /** Begins to enforce a call's lines, or enforces those that it has now. */
  enforce(call: Call): void {
    const { enforcement } = this.#config();
    this.#enforcer.set(
      call.cgroup,
      {
        memoryHighBytes: call.lines.memoryHighBytes,
        freezeLineBytes: call.lines.freezeLineBytes,
        budgetMs: enforcement.throttleBudgetMs,
        budgetEvents: enforcement.throttleBudgetEvents,
        windowMs: enforcement.windowMs,
        poolLineBytes: call.chargeLineBytes,
      },
      call.cycle,
    );
  }

  usageBytes(call: Call): number {
    try {
      return this.#enforcer.usageBytes(call.cgroup);
    } catch (error) {
      // Removed under us: it holds nothing any more.
      if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENODEV') return 0;
      throw error;
    }
  }

  forget(call: Call): void {
    this.#enforcer.forget(call.cgroup);
  }
}
