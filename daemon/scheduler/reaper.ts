// SPDX-License-Identifier: Apache-2.0
import type { Clock, Timer } from './clock.ts';
import type { ReaperSettings } from './settings.ts';
import type { PauseReason } from './types.ts';

/** Which limit of silence was reached. */
export type HungCause =
  | 'first-byte' // nothing at all came
  | 'between-bytes' // it came to a stop
  | 'pings-only' // kept alive without content
  | 'whole-response' // not streaming, and longer than the client waits
  | 'lease-expired'; // the lease's end, whatever came: its owner has lost it

/** Which limit of silence a turn reached, and what was seen of it until then. Times are without pauses, but for `heldMs`. */
export interface Silence {
  readonly cause: HungCause;
  readonly limitMs: number;
  /** Since the last progress that counts for the cause. */
  readonly silentMs: number;
  /** Since the lease was granted. */
  readonly heldMs: number;
  readonly pausedMs: number;
  /** Since headers, content and a ping came; null: none came. */
  readonly sinceHeadersMs: number | null;
  readonly sinceContentMs: number | null;
  readonly sincePingMs: number | null;
  readonly contentEvents: number;
  readonly pings: number;
}

/** What was known when a turn was found hung; all of it goes into the log. */
export interface HungEvidence extends Silence {
  readonly turn: string;
  readonly session: string;
  readonly attempt: number;
  readonly committed: boolean;
  readonly dryRun: boolean;
}

/** What of a turn decides how long it may be silent. */
export interface Watched {
  readonly streaming: boolean;
  /** From now on. */
  readonly clientTimeoutMs?: number;
}

interface Deadline {
  readonly cause: HungCause;
  readonly atMs: number;
  readonly limitMs: number;
  readonly sinceMs: number;
}

/**
 * Watches one attempt for silence: a turn is hung if its upstream is silent while its client is reading. One
 * timer, which is not moved with each chunk: when it fires it looks how much is left.
 *
 * Everything but the lease's own end is counted in time that stands still during pauses.
 */
export class SilenceWatch {
  readonly #clock: Clock;
  readonly #settings: ReaperSettings;
  readonly #turn: Watched;
  readonly #onSilent: (silence: Silence) => void;
  readonly #grantedAtMs: number;
  readonly #pauses = new Set<PauseReason>();
  #timer: Timer | null = null;
  #timerAtMs = 0;
  #pausedAtMs = 0;
  #pausedMs = 0;
  #headersAtMs: number | null = null;
  #contentAtMs: number | null = null;
  #pingAtMs: number | null = null;
  #contentEvents = 0;
  #pings = 0;
  /** It was told (dry run): not again before something comes. */
  #told = false;
  #stopped = false;

  /** @param onSilent called at most once, in a dry run once for each silence. */
  constructor(clock: Clock, settings: ReaperSettings, turn: Watched, onSilent: (silence: Silence) => void) {
    this.#clock = clock;
    this.#settings = settings;
    this.#turn = turn;
    this.#onSilent = onSilent;
    this.#grantedAtMs = clock.now();
    this.#arm();
  }

  headers(): void {
    this.#headersAtMs = this.#activeNow();
    this.#progressed();
  }

  progress(kind: 'content' | 'ping'): void {
    if (kind === 'content') {
      this.#contentAtMs = this.#activeNow();
      this.#contentEvents += 1;
    } else {
      this.#pingAtMs = this.#activeNow();
      this.#pings += 1;
    }
    this.#progressed();
  }

  get contentEvents(): number {
    return this.#contentEvents;
  }

  /** Time that counts as held up on our side of the wire. */
  get pausedMs(): number {
    return this.#pausedMs + (this.#pauses.size > 0 ? this.#clock.now() - this.#pausedAtMs : 0);
  }

  pause(reason: PauseReason): void {
    if (this.#pauses.size === 0) this.#pausedAtMs = this.#clock.now();
    this.#pauses.add(reason);
  }

  resume(reason: PauseReason): void {
    if (!this.#pauses.delete(reason) || this.#pauses.size > 0) return;
    this.#pausedMs += this.#clock.now() - this.#pausedAtMs;
    this.#arm();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#timer = null;
  }

  #progressed(): void {
    if (!this.#told || this.#stopped) return;
    this.#told = false;
    this.#arm();
  }

  #activeNow(): number {
    return this.#clock.now() - this.pausedMs;
  }

  /** Sees to it that the timer fires no later than it has to. One that fires too early looks again. */
  #arm(): void {
    if (this.#stopped) return;
    const nowMs = this.#clock.now();
    const waits = this.#pauses.size === 0 && !this.#told;
    const leftMs = waits ? this.#deadline().atMs - this.#activeNow() : Number.POSITIVE_INFINITY;
    let dueMs = Math.min(nowMs + leftMs, this.#grantedAtMs + this.#settings.leaseMs);
    const { scanMs } = this.#settings;
    if (scanMs !== null) dueMs = Math.ceil(dueMs / scanMs) * scanMs;
    if (dueMs === Number.POSITIVE_INFINITY || (this.#timer !== null && this.#timerAtMs <= dueMs)) return;
    this.#timer?.cancel();
    this.#timerAtMs = dueMs;
    this.#timer = this.#clock.setTimer(Math.max(0, dueMs - nowMs), () => this.#fired());
  }

  #fired(): void {
    this.#timer = null;
    const expired = this.#clock.now() - this.#grantedAtMs >= this.#settings.leaseMs;
    const deadline = expired ? this.#expiry() : this.#deadline();
    if (!expired && (this.#pauses.size > 0 || this.#told || this.#activeNow() < deadline.atMs)) {
      this.#arm();
      return;
    }
    this.#told = true;
    // In a dry run the lease lives on; otherwise its owner stops the watch now.
    this.#onSilent(this.#silence(deadline));
    if (this.#told && !expired) this.#arm();
  }

  /** The first limit that will be reached if nothing more comes; in time without pauses. */
  #deadline(): Deadline {
    const { firstByteMs, betweenBytesMs, pingsOnlyMs, wholeResponseMs } = this.#settings;
    const at = (cause: HungCause, sinceMs: number, limitMs: number): Deadline => ({
      cause,
      sinceMs,
      limitMs,
      atMs: sinceMs + limitMs,
    });
    if (!this.#turn.streaming) {
      return at('whole-response', this.#grantedAtMs, this.#turn.clientTimeoutMs ?? wholeResponseMs);
    }
    const never = Number.NEGATIVE_INFINITY;
    const byteMs = Math.max(this.#headersAtMs ?? never, this.#contentAtMs ?? never, this.#pingAtMs ?? never);
    const silent =
      byteMs === never
        ? at('first-byte', this.#grantedAtMs, firstByteMs)
        : at('between-bytes', byteMs, betweenBytesMs);
    const idle = at('pings-only', this.#contentAtMs ?? this.#grantedAtMs, pingsOnlyMs);
    return idle.atMs < silent.atMs ? idle : silent;
  }

  #expiry(): Deadline {
    const { leaseMs } = this.#settings;
    const sinceMs = this.#grantedAtMs;
    return { cause: 'lease-expired', sinceMs, limitMs: leaseMs, atMs: sinceMs + leaseMs };
  }

  #silence({ cause, limitMs, sinceMs }: Deadline): Silence {
    const nowMs = this.#activeNow();
    const since = (atMs: number | null) => (atMs === null ? null : nowMs - atMs);
    return {
      cause,
      limitMs,
      silentMs: nowMs - sinceMs,
      heldMs: this.#clock.now() - this.#grantedAtMs,
      pausedMs: this.pausedMs,
      sinceHeadersMs: since(this.#headersAtMs),
      sinceContentMs: since(this.#contentAtMs),
      sincePingMs: since(this.#pingAtMs),
      contentEvents: this.#contentEvents,
      pings: this.#pings,
    };
  }
}
