// SPDX-License-Identifier: Apache-2.0
import type { Breaker } from './breaker.ts';
import type { Clock } from './clock.ts';
import type { Reservation } from './rate-limits.ts';
import type { Silence } from './reaper.ts';
import { SilenceWatch } from './reaper.ts';
import type { ReaperSettings } from './settings.ts';
import type { HeaderReader, Lease, Outcome, PauseReason, Turn, Usage, Verdict } from './types.ts';

/** How an attempt ended; `hung` is found here, the rest is told by the owner. */
export type LeaseEnd = Outcome | { readonly kind: 'hung'; readonly silence: Silence };

/** What the scheduler does for a lease. */
export interface LeaseHost<Holder> {
  readonly learn: (lease: LaneLease<Holder>, headers: HeaderReader) => void;
  /** More is known of what it uses. */
  readonly used: (lease: LaneLease<Holder>, before: Usage) => void;
  /** The lease is over, in whatever way: called exactly once. */
  readonly ended: (lease: LaneLease<Holder>, end: LeaseEnd) => Verdict;
  /** A silence in a dry run: the lease lives on. */
  readonly silent: (lease: LaneLease<Holder>, silence: Silence) => void;
}

export interface LeaseGrant<Holder> {
  /** What the scheduler knows the turn by. */
  readonly holder: Holder;
  readonly turn: Turn;
  readonly attempt: number;
  readonly waitedMs: number;
  /** What is left of the time that the client waits, if it says how long. */
  readonly clientLeftMs: number | undefined;
  readonly reservation: Reservation;
  /** For which it is the one that tries whether the account is served again. */
  readonly probes: readonly Breaker[];
  /** Lane time that was counted ahead for fairness. */
  readonly countedLaneMs: number;
  readonly countedOutputTokens: number;
}

/** One attempt's right to a lane. Ends once: by its owner, by silence, or with its time. */
export class LaneLease<Holder> implements Lease {
  readonly holder: Holder;
  readonly turn: Turn;
  readonly attempt: number;
  readonly waitedMs: number;
  readonly grant: LeaseGrant<Holder>;
  readonly grantedAtMs: number;
  readonly #host: LeaseHost<Holder>;
  readonly #watch: SilenceWatch;
  #live = true;
  #status: number | null = null;
  #committed = false;
  #usage: Usage = {};

  constructor(clock: Clock, settings: ReaperSettings, grant: LeaseGrant<Holder>, host: LeaseHost<Holder>) {
    this.holder = grant.holder;
    this.turn = grant.turn;
    this.attempt = grant.attempt;
    this.waitedMs = grant.waitedMs;
    this.grant = grant;
    this.grantedAtMs = clock.now();
    this.#host = host;
    const { turn, clientLeftMs } = grant;
    const watched = {
      streaming: turn.streaming,
      ...(clientLeftMs === undefined ? {} : { clientTimeoutMs: clientLeftMs }),
    };
    this.#watch = new SilenceWatch(clock, settings, watched, (silence) => {
      if (settings.dryRun && silence.cause !== 'lease-expired') this.#host.silent(this, silence);
      else this.#end({ kind: 'hung', silence });
    });
  }

  get live(): boolean {
    return this.#live;
  }

  /** Of the answer's head; null: none has come. */
  get status(): number | null {
    return this.#status;
  }

  /** It has been answered, and not with an error. */
  get isServed(): boolean {
    return this.#status !== null && this.#status < 400;
  }

  get isCommitted(): boolean {
    return this.#committed;
  }

  get toldUsage(): Usage {
    return this.#usage;
  }

  get contentEvents(): number {
    return this.#watch.contentEvents;
  }

  get pausedMs(): number {
    return this.#watch.pausedMs;
  }

  headers(headers: HeaderReader, status: number): void {
    if (!this.#live) return;
    this.#watch.headers();
    this.#status = status;
    this.#host.learn(this, headers);
  }

  progress(kind: 'content' | 'ping'): void {
    if (this.#live) this.#watch.progress(kind);
  }

  committed(): void {
    this.#committed = true;
  }

  pause(reason: PauseReason): void {
    if (this.#live) this.#watch.pause(reason);
  }

  resume(reason: PauseReason): void {
    if (this.#live) this.#watch.resume(reason);
  }

  usage(usage: Usage): void {
    if (!this.#live) return;
    const before = this.#usage;
    this.#usage = { ...before, ...usage };
    this.#host.used(this, before);
  }

  end(outcome: Outcome): Verdict {
    return this.#live ? this.#end(outcome) : { action: 'done' };
  }

  #end(end: LeaseEnd): Verdict {
    this.#live = false;
    this.#watch.stop();
    return this.#host.ended(this, end);
  }
}
