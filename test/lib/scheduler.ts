// SPDX-License-Identifier: Apache-2.0
import type { HungEvidence } from '../../daemon/scheduler/reaper.ts';
import type { Refusal } from '../../daemon/scheduler/refusals.ts';
import { Scheduler, type SchedulerOptions } from '../../daemon/scheduler/scheduler.ts';
import { defaultSettings, type SchedulerSettings } from '../../daemon/scheduler/settings.ts';
import type { Lease, Ticket, Turn, Verdict } from '../../daemon/scheduler/types.ts';
import { SimulatedClock } from '../../daemon/sim/clock.ts';

let turns = 0;

/** A user's turn with one property or the other changed. */
export function turn(changes: Partial<Turn> = {}): Turn {
  turns += 1;
  const hash = `b${turns}`;
  return {
    id: `t${turns}`,
    session: 's1',
    provider: 'anthropic',
    credential: 'c1',
    modelClass: 'sonnet',
    class: 'interactive',
    runStart: true,
    inputTokens: 1_000,
    streaming: true,
    retryable: true,
    bodyHash: () => hash,
    ...changes,
  };
}

/** What a turn's owner was told, in order. */
export interface Told {
  readonly turn: Turn;
  readonly ticket: Ticket;
  readonly leases: Lease[];
  readonly refusals: Refusal[];
  readonly hung: { readonly evidence: HungEvidence; readonly verdict: Verdict }[];
}

type Changes = { readonly [K in keyof SchedulerSettings]?: Partial<SchedulerSettings[K]> };

export function settings(changes: Changes = {}): SchedulerSettings {
  const keys = Object.keys(defaultSettings) as (keyof SchedulerSettings)[];
  const merged = keys.map((key) => [key, { ...defaultSettings[key], ...changes[key] }]);
  return Object.fromEntries(merged) as SchedulerSettings;
}

/** A scheduler on a simulated clock, with chance that always yields the middle. */
export class SchedulerLab {
  readonly clock: SimulatedClock;
  readonly scheduler: Scheduler;
  /** Turns in the order in which they got leases. */
  readonly granted: string[] = [];

  /** @param startedAfterMs when it starts, after the time at which others do. */
  constructor(changes: Changes = {}, options: Partial<SchedulerOptions> = {}, startedAfterMs = 0) {
    this.clock = new SimulatedClock(Date.parse('2026-11-21T04:00:00Z') + startedAfterMs);
    const { clock } = this;
    this.scheduler = new Scheduler({ clock, random: () => 0.5, settings: settings(changes), ...options });
  }

  submit(changes: Partial<Turn> = {}): Told {
    const one = turn(changes);
    const leases: Lease[] = [];
    const refusals: Refusal[] = [];
    const hung: Told['hung'] = [];
    const ticket = this.scheduler.submit(one, {
      onLease: (lease) => {
        leases.push(lease);
        this.granted.push(one.id);
      },
      onRefused: (refusal) => refusals.push(refusal),
      onHung: (evidence, verdict) => hung.push({ evidence, verdict }),
    });
    return { turn: one, ticket, leases, refusals, hung };
  }

  pass(ms: number): void {
    this.clock.run(this.clock.now() + ms);
  }

  /** What {@link Scheduler.snapshot} says of the only upstream. */
  get upstream() {
    const [upstream] = this.scheduler.snapshot().upstreams;
    if (upstream === undefined) throw new Error('no turn was submitted yet');
    return upstream;
  }
}

/** The newest lease of a turn that has one. */
export function leaseOf({ turn: { id }, leases }: Told): Lease {
  const lease = leases.at(-1);
  if (lease === undefined) throw new Error(`turn ${id} has no lease`);
  return lease;
}
