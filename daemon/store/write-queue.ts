// SPDX-License-Identifier: Apache-2.0
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Row } from './database.ts';
import { JournalKeeper } from './journal-keeper.ts';
import { BATCH } from './thread.ts';

export interface WriteQueueOptions {
  /** The SQLite file, for messages. */
  readonly path: string;
  /** As {@link JournalKeeper} has it. */
  readonly journal: string | undefined;
  /** Rejects if none of them is in the file. */
  readonly write: (rows: readonly Row[]) => Promise<void>;
  readonly log: Log;
}

export interface StoreCounters {
  /** Records that are in the file. */
  readonly written: number;
  /** Records that were lost: no room to wait, or not to be written at all. */
  readonly dropped: number;
  /** Writes and queries that failed. */
  readonly errors: number;
  /** Records that wait for the file. */
  readonly pending: number;
  /** Records that were in memory only: the journal could not be written, or was full. */
  readonly unjournaled: number;
}

/** How long a record waits for others, so that a burst of short calls costs one commit, not one each. */
const FLUSH_MS = 100;

/** Records that wait while the file cannot be written: an hour of four busy agents, at most 12 MB. */
const MAX_PENDING = 2048;

/** A failing file is tried again after 1 s, then less and less often: a full disk stays full for long. */
const RETRY_MS = { first: 1_000, last: 30_000 };

/** Records on their way to the file: in memory, bounded, and beside that in the journal until they are written. */
export class WriteQueue {
  readonly #options: WriteQueueOptions;
  readonly #journal: JournalKeeper;
  readonly #pending: Row[] = [];
  /** How many at the front of `#pending` are being written. */
  #inFlight = 0;
  #draining: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retryMs = 0;
  #failing = false;
  #finishing = false;
  #written = 0;
  #dropped = 0;
  #errors = 0;

  /** Begins with what an earlier daemon has left in the journal. */
  constructor(options: WriteQueueOptions) {
    this.#options = options;
    this.#journal = new JournalKeeper(options.journal, options.log);
    const { rows, lost } = this.#journal.read(MAX_PENDING);
    // Some may be in the file: a record that is there already stays as it is.
    this.#pending.push(...rows);
    this.#dropped += lost;
    if (rows.length > 0) this.#flushIn(FLUSH_MS);
  }

  /** Those that are not in the file, oldest first. */
  get pending(): readonly Row[] {
    return this.#pending;
  }

  /** @param row undefined: it cannot be written, which is counted. */
  add(row: Row | undefined): void {
    if (row === undefined || this.#finishing) {
      this.#dropped += 1;
      return;
    }
    this.restoreJournal();
    if (this.#pending.length >= MAX_PENDING) {
      // The oldest of those that are not being written just now.
      this.#pending.splice(this.#inFlight, 1);
      this.#dropped += 1;
    }
    this.#pending.push(row);
    this.#journal.add(row);
    this.#flushIn(Math.max(FLUSH_MS, this.#retryMs));
  }

  /** Writes all that waits, or stops at the first failure; never rejects. */
  drain(): Promise<void> {
    this.#draining ??= this.#writeAll().finally(() => {
      this.#draining = undefined;
    });
    return this.#draining;
  }

  /** Makes the journal anew, with all that waits, if somebody has removed it. */
  restoreJournal(): void {
    this.#journal.restore(this.#pending);
  }

  /** A write or a query failed. Counts each, and tells of the first in a row. */
  failed(error: unknown): void {
    this.#errors += 1;
    if (this.#failing) return;
    this.#failing = true;
    const { log, path } = this.#options;
    log.warn({ path, reason: messageOf(error) }, 'finished calls are kept in memory');
  }

  counters(): StoreCounters {
    return {
      written: this.#written,
      dropped: this.#dropped,
      errors: this.#errors,
      pending: this.#pending.length,
      unjournaled: this.#journal.unjournaled,
    };
  }

  /** As {@link drain}, for the last time: takes no more. */
  finish(): Promise<void> {
    this.#finishing = true;
    clearTimeout(this.#timer);
    return this.drain();
  }

  /** Leaves what still waits to the next daemon, if there is a journal. */
  close(): void {
    const left = this.#pending.length;
    if (left > 0) this.restoreJournal();
    const kept = this.#journal.close(left > 0);
    if (left === 0) return;
    const { log, path } = this.#options;
    if (!kept) log.warn({ path, lost: left }, 'finished calls lost');
    else log.warn({ path, left }, 'finished calls left for the next start');
  }

  #flushIn(ms: number): void {
    if (this.#timer !== undefined || this.#finishing) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.drain();
    }, ms).unref();
  }

  async #writeAll(): Promise<void> {
    const { log, path, write } = this.#options;
    while (this.#pending.length > 0) {
      const rows = this.#pending.slice(0, BATCH);
      this.#inFlight = rows.length;
      try {
        await write(rows);
      } catch (error) {
        this.#inFlight = 0;
        this.failed(error);
        this.#retryMs = Math.min(this.#retryMs === 0 ? RETRY_MS.first : this.#retryMs * 2, RETRY_MS.last);
        this.#flushIn(this.#retryMs);
        return;
      }
      this.#pending.splice(0, rows.length);
      this.#inFlight = 0;
      this.#written += rows.length;
      this.#retryMs = 0;
      if (this.#failing) log.info({ path }, 'finished calls are stored again');
      this.#failing = false;
    }
    this.#journal.clear();
  }
}
