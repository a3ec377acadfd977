// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';
import type { CallRecord } from '../control/types.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Learned } from '../policy/learned.ts';
import type { CommandRun, Filter, LearnedFilter, Row } from './database.ts';
import { Journal } from './journal.ts';
import { StoreThread } from './thread.ts';

export interface StoreOptions {
  /** The SQLite file; its directory is made if it is missing. */
  readonly path: string;
  /** Where records that wait for the file outlive this process; on a file system in memory. Default: nowhere. */
  readonly journal?: string;
  /** Finished calls that are kept; default {@link KEEP_CALLS}. */
  readonly keepCalls?: number;
  /** Commands of which runs are kept, default none, and runs that are kept of each. */
  readonly keepShapes?: number;
  readonly keepRuns?: number;
  readonly log: Log;
}

export interface Query {
  /** How many of the newest records. */
  readonly limit: number;
  readonly session?: string | undefined;
  /** Only this user's. */
  readonly uid?: number | undefined;
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

/** About a day of one busy agent (a call every 8 s); 7 MB of file at usual commands, 60 MB at worst. */
export const KEEP_CALLS = 10_000;

/** How long a record waits for others, so that a burst of short calls costs one commit, not one each. */
const FLUSH_MS = 100;

/** Records in one transaction, and in one page of an answer: at most some 1.5 MB between the threads. */
const BATCH = 256;

/** Records that wait while the file cannot be written: an hour of four busy agents, at most 12 MB. */
const MAX_PENDING = 2048;

/** A failing file is tried again after 1 s, then less and less often: a full disk stays full for long. */
const RETRY_MS = { first: 1_000, last: 30_000 };

/** A query that waits longer is answered from memory; a person is waiting for it. */
const QUERY_MS = 2_000;

/** What was learned has no answer from memory; with the wait for what is pending, less than the 5 s of a client. */
const LEARNED_MS = 2_500;

/** Closing must not outlast the stop timeout of the service. */
const CLOSE_MS = 2_000;

/** Bounds of one record, which hold it to some 6 KB and the file to a size that `keepCalls` can promise. */
const MAX_COMMAND_CHARS = 1024;
const MAX_DECISIONS = 32;

/**
 * Keeps finished calls in a file and finds them again. Nothing here waits for the disk or throws into
 * the caller: records queue up for a thread of their own, and stay in memory, bounded and still to be
 * found, while the file cannot be written.
 */
export class Store {
  readonly #thread: StoreThread;
  readonly #log: Log;
  readonly #path: string;
  readonly #keepCalls: number;
  #journal: Journal | undefined;
  readonly #pending: Row[] = [];
  /** How many at the front of `#pending` are being written. */
  #inFlight = 0;
  #draining: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retryMs = 0;
  #failing = false;
  #journalFailing = false;
  #closed: Promise<void> | undefined;
  #written = 0;
  #dropped = 0;
  #errors = 0;
  #unjournaled = 0;

  constructor(options: StoreOptions) {
    const { path, journal, keepCalls = KEEP_CALLS, keepShapes = 0, keepRuns = 1, log } = options;
    this.#path = path;
    this.#keepCalls = keepCalls;
    this.#log = log;
    this.#thread = new StoreThread({
      settings: { path, keepCalls, keepShapes, keepRuns },
      onNotice: (notice) => log.warn({ path, notice }, 'database moved aside'),
    });
    try {
      this.#journal = journal === undefined ? undefined : new Journal(journal);
      const { rows, unusable } = this.#journal?.read() ?? { rows: [], unusable: 0 };
      // Some may be in the file: a record that is there already stays as it is.
      this.#pending.push(...rows.slice(-MAX_PENDING));
      this.#dropped += unusable;
      if (unusable > 0) log.warn({ journal, unusable }, 'finished calls of an earlier daemon cannot be read');
    } catch (error) {
      this.#journalFailed(error);
    }
    if (this.#pending.length > 0) this.#flushIn(FLUSH_MS);
  }

  /** Takes a finished call, and what it has shown about its command. */
  add(record: CallRecord, run?: CommandRun): void {
    const row = toRow(record, run);
    if (row === undefined || this.#closed !== undefined) {
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
    this.#keepInJournal(row);
    this.#flushIn(Math.max(FLUSH_MS, this.#retryMs));
  }

  /**
   * The newest `limit` records that match, oldest first, each as one line of JSON: they were stored as
   * that and are only passed on. What was added before is among them, whether or not it is in the file.
   */
  async *lines(query: Query): AsyncGenerator<string, void, void> {
    const late = sleep(QUERY_MS, 'late', { ref: false });
    const stuck = (await Promise.race([this.#drain(), late])) === 'late';
    const limit = Math.min(query.limit, this.#keepCalls);
    if (limit <= 0) return;
    const waiting = this.#pending.filter((row) => matches(row, query)).slice(-limit);
    const unseen = new Set(waiting.map(({ id }) => id));
    if (waiting.length < limit && !stuck) {
      for await (const { id, json } of this.#stored(query, limit - waiting.length)) {
        unseen.delete(id);
        yield json;
      }
    }
    for (const { id, json } of waiting) if (unseen.has(id)) yield json;
  }

  /**
   * What was learned, oldest first, also from calls that were added before.
   * @throws Error if the file does not answer.
   */
  async *learned(filter: LearnedFilter): AsyncGenerator<Learned, void, void> {
    const late = sleep(QUERY_MS, undefined, { ref: false });
    await Promise.race([this.#drain(), late]);
    let id = 0;
    for (;;) {
      const rows = await this.#answer(
        this.#thread.request({ do: 'learned', filter, id, limit: BATCH }),
        LEARNED_MS,
      ).catch((error: unknown) => {
        this.#failed(error);
        throw error;
      });
      yield* rows;
      const last = rows.at(-1);
      if (last === undefined || rows.length < BATCH) return;
      id = last.id;
    }
  }

  /** Makes the journal anew, with all that waits, if somebody has removed it. */
  restoreJournal(): void {
    const journal = this.#journal;
    try {
      if (!journal?.removed) return;
      journal.reopen();
      this.#journalFailing = false;
    } catch (error) {
      this.#journalFailed(error);
      return;
    }
    for (const row of this.#pending) this.#keepInJournal(row);
  }

  counters(): StoreCounters {
    return {
      written: this.#written,
      dropped: this.#dropped,
      errors: this.#errors,
      pending: this.#pending.length,
      unjournaled: this.#unjournaled,
    };
  }

  /** Writes what waits, for at most 2 s, and closes the file. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    const late = sleep(CLOSE_MS, undefined, { ref: false });
    const finished = this.#drain().then(() => this.#thread.close());
    await Promise.race([finished, late]);
    const left = this.#pending.length;
    if (left > 0) this.restoreJournal();
    const journal = this.#journal;
    const kept = journal !== undefined && !journal.removed;
    // What is still under way has nothing to do with it any more.
    this.#journal = undefined;
    journal?.close(left > 0);
    if (left === 0) return;
    if (!kept) this.#log.warn({ path: this.#path, lost: left }, 'finished calls lost');
    else this.#log.warn({ path: this.#path, left }, 'finished calls left for the next start');
  }

  async *#stored(filter: Filter, limit: number) {
    try {
      let seq = await this.#answer(this.#thread.request({ do: 'start', filter, limit }));
      let left = limit;
      while (seq !== undefined && left > 0) {
        const size = Math.min(left, BATCH);
        const rows = await this.#answer(this.#thread.request({ do: 'page', filter, seq, limit: size }));
        yield* rows;
        left -= rows.length;
        const last = rows.at(-1);
        seq = last === undefined || rows.length < size ? undefined : last.seq + 1;
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  async #answer<T>(request: Promise<T>, waitMs = QUERY_MS): Promise<T> {
    const late = sleep(waitMs, undefined, { ref: false }).then(() => {
      throw new Error('the database does not answer');
    });
    return Promise.race([request, late]);
  }

  #flushIn(ms: number): void {
    if (this.#timer !== undefined || this.#closed !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#drain();
    }, ms).unref();
  }

  /** Writes all that waits, or stops at the first failure; never rejects. */
  #drain(): Promise<void> {
    this.#draining ??= this.#writeAll().finally(() => {
      this.#draining = undefined;
    });
    return this.#draining;
  }

  async #writeAll(): Promise<void> {
    while (this.#pending.length > 0) {
      const rows = this.#pending.slice(0, BATCH);
      this.#inFlight = rows.length;
      try {
        await this.#thread.request({ do: 'write', rows });
      } catch (error) {
        this.#inFlight = 0;
        this.#failed(error);
        this.#retryMs = Math.min(this.#retryMs === 0 ? RETRY_MS.first : this.#retryMs * 2, RETRY_MS.last);
        this.#flushIn(this.#retryMs);
        return;
      }
      this.#pending.splice(0, rows.length);
      this.#inFlight = 0;
      this.#written += rows.length;
      this.#retryMs = 0;
      if (this.#failing) this.#log.info({ path: this.#path }, 'finished calls are stored again');
      this.#failing = false;
    }
    try {
      this.#journal?.clear();
    } catch (error) {
      this.#journalFailed(error);
    }
  }

  #keepInJournal(row: Row): void {
    if (this.#journal === undefined) return;
    try {
      if (this.#journal.add(row)) return;
      this.#journalFailed(new Error('the journal is full'));
    } catch (error) {
      this.#journalFailed(error);
    }
    this.#unjournaled += 1;
  }

  /** It is only for a daemon that is killed: this one goes on without. */
  #journalFailed(error: unknown): void {
    if (this.#journalFailing) return;
    this.#journalFailing = true;
    this.#log.warn({ reason: messageOf(error) }, 'finished calls that wait are lost if the daemon is killed');
  }

  /** Counts every failure and tells of the first in a row. */
  #failed(error: unknown): void {
    this.#errors += 1;
    if (this.#failing) return;
    this.#failing = true;
    this.#log.warn({ path: this.#path, reason: messageOf(error) }, 'finished calls are kept in memory');
  }
}

/** Opens the store; the file itself is opened by the first write or query, on the store's own thread. */
export function openStore(options: StoreOptions): Store {
  return new Store(options);
}

function matches(row: Row, { session, uid }: Filter): boolean {
  return (session === undefined || row.session === session) && (uid === undefined || row.uid === uid);
}

/** Undefined for a record that has no JSON form. */
function toRow(record: CallRecord, run: CommandRun | undefined): Row | undefined {
  try {
    const { command, decisions, id, session, uid } = record;
    const short = command.length > MAX_COMMAND_CHARS ? `${command.slice(0, MAX_COMMAND_CHARS)}…` : command;
    const json = JSON.stringify({ ...record, command: short, decisions: decisions.slice(-MAX_DECISIONS) });
    return { id, session, uid, json, ...(run === undefined ? {} : { run }) };
  } catch {
    return undefined;
  }
}
