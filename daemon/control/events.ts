// SPDX-License-Identifier: Apache-2.0
import type { Event } from './types.ts';

/** Remembered for `agentrm events` without -f: an hour of a busy host at a few calls a minute. */
const REMEMBERED = 1000;
/** A follower that is this far behind loses events instead of growing the daemon. */
const MAX_BEHIND = 4096;

interface Follower {
  readonly uid: number | undefined;
  readonly pending: Event[];
  lost: number;
  wake: (() => void) | undefined;
}

/** What happened, in order; the newest are remembered, followers get what comes. */
export class EventLog {
  readonly #remembered: { event: Event; uid: number | undefined }[] = [];
  readonly #followers = new Set<Follower>();
  #seq = 0;
  #dropped = 0;

  /** Events that slow followers lost. */
  get dropped(): number {
    return this.#dropped;
  }

  /** @param uid whose event it is; undefined: everybody may see it. */
  emit(kind: string, uid: number | undefined, fields: Record<string, unknown>): void {
    this.#seq += 1;
    const event: Event = { seq: this.#seq, time: new Date().toISOString(), kind, ...fields };
    this.#remembered.push({ event, uid });
    if (this.#remembered.length > REMEMBERED) this.#remembered.shift();
    for (const follower of this.#followers) {
      if (follower.uid !== undefined && uid !== undefined && follower.uid !== uid) continue;
      // Once it has lost one it has to catch up, so that `lost` stands where the gap is.
      if (follower.lost > 0 || follower.pending.length >= MAX_BEHIND) {
        follower.lost += 1;
        this.#dropped += 1;
      } else {
        follower.pending.push(event);
      }
      follower.wake?.();
    }
  }

  /** @param uid whose events; undefined: all. */
  remembered(uid: number | undefined): Event[] {
    return this.#remembered
      .filter((entry) => uid === undefined || entry.uid === undefined || entry.uid === uid)
      .map((entry) => entry.event);
  }

  /** What is remembered, then what comes, until the signal. */
  async *follow(uid: number | undefined, signal: AbortSignal): AsyncGenerator<Event> {
    const follower: Follower = { uid, pending: this.remembered(uid), lost: 0, wake: undefined };
    const onAbort = () => follower.wake?.();
    signal.addEventListener('abort', onAbort);
    this.#followers.add(follower);
    try {
      while (!signal.aborted) {
        const event = follower.pending.shift();
        if (event !== undefined) yield event;
        else if (follower.lost > 0) {
          const count = follower.lost;
          follower.lost = 0;
          yield { seq: this.#seq, time: new Date().toISOString(), kind: 'lost', count };
        } else {
          await new Promise<void>((resolve) => {
            follower.wake = resolve;
          });
          follower.wake = undefined;
        }
      }
    } finally {
      this.#followers.delete(follower);
      signal.removeEventListener('abort', onAbort);
    }
  }
}
