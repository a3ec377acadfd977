// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';
import type { CallRecord } from '../control/types.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Learned } from '../policy/learned.ts';
import type { CommandRun, Filter, LearnedFilter, Row } from './database.ts';
import { BATCH, NO_ANSWER, StoreThread } from './thread.ts';
import { type StoreCounters, WriteQueue } from './write-queue.ts';

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

/** About a day of one busy agent (a call every 8 s); 7 MB of file at usual commands, 60 MB at worst. */
export const KEEP_CALLS = 10_000;

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
  readonly #queue: WriteQueue;
  readonly #keepCalls: number;
  #closed: Promise<void> | undefined;

  constructor(options: StoreOptions) {
    const { path, journal, keepCalls = KEEP_CALLS, keepShapes = 0, keepRuns = 1, log } = options;
    this.#keepCalls = keepCalls;
    this.#thread = new StoreThread({
      settings: { path, keepCalls, keepShapes, keepRuns },
      onNotice: (notice) => log.warn({ path, notice }, 'database moved aside'),
    });
    const write = (rows: readonly Row[]) => this.#thread.request({ do: 'write', rows });
    this.#queue = new WriteQueue({ path, journal, write, log });
  }

  /** Takes a finished call, and what it has shown about its command. */
  add(record: CallRecord, run?: CommandRun): void {
    this.#queue.add(toRow(record, run));
  }

  /**
   * The newest `limit` records that match, oldest first, each as one line of JSON: they were stored as
   * that and are only passed on. What was added before is among them, whether or not it is in the file.
   * @param onIncomplete called with the reason if the file did not answer in time for what only it has
   */
  async *lines(
    query: Query,
    onIncomplete: (reason: string) => void = () => {},
  ): AsyncGenerator<string, void, void> {
    const late = sleep(QUERY_MS, 'late', { ref: false });
    const stuck = (await Promise.race([this.#queue.drain(), late])) === 'late';
    const limit = Math.min(query.limit, this.#keepCalls);
    if (limit <= 0) return;
    const waiting = this.#queue.pending.filter((row) => matches(row, query)).slice(-limit);
    const unseen = new Set(waiting.map(({ id }) => id));
    if (waiting.length < limit && stuck) onIncomplete(NO_ANSWER);
    else if (waiting.length < limit) {
      for await (const { id, json } of this.#stored(query, limit - waiting.length, onIncomplete)) {
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
    await Promise.race([this.#queue.drain(), late]);
    let id = 0;
    for (;;) {
      const rows = await this.#answer(
        this.#thread.request({ do: 'learned', filter, id, limit: BATCH }),
        LEARNED_MS,
      ).catch((error: unknown) => {
        this.#queue.failed(error);
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
    this.#queue.restoreJournal();
  }

  counters(): StoreCounters {
    return this.#queue.counters();
  }

  /** Writes what waits, for at most 2 s, and closes the file. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const late = sleep(CLOSE_MS, undefined, { ref: false });
    const finished = this.#queue.finish().then(() => this.#thread.close());
    await Promise.race([finished, late]);
    this.#queue.close();
  }

  async *#stored(filter: Filter, limit: number, onIncomplete: (reason: string) => void) {
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
      this.#queue.failed(error);
      onIncomplete(messageOf(error));
    }
  }

  async #answer<T>(request: Promise<T>, waitMs = QUERY_MS): Promise<T> {
    const late = sleep(waitMs, undefined, { ref: false }).then(() => {
      throw new Error(NO_ANSWER);
    });
    return Promise.race([request, late]);
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
