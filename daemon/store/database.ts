// SPDX-License-Identifier: Apache-2.0
import { closeSync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf } from '../errors.ts';
import type { Learned, Observation } from '../policy/learned.ts';
import { LearnedTable } from './learned-table.ts';
import { migrations } from './migrations.ts';

/** One finished call as it is stored; `json` is the whole record, the rest is what is searched by. */
export interface Row {
  readonly id: string;
  readonly session: string;
  readonly uid: number;
  readonly json: string;
  /** What the call has shown about its command; absent: nothing is to be learned from it. */
  readonly run?: CommandRun;
}

/** One run of a command in a repository. */
export interface CommandRun extends Observation {
  /** Empty: in none. */
  readonly repository: string;
  readonly shape: string;
  readonly endedAt: string;
}

export interface LearnedRow extends Learned {
  readonly id: number;
}

export interface LearnedFilter {
  readonly uid?: number | undefined;
  readonly repository?: string | undefined;
  readonly shape?: string | undefined;
}

export interface StoredRow {
  readonly seq: number;
  readonly id: string;
  readonly json: string;
}

export interface Filter {
  readonly session?: string | undefined;
  readonly uid?: number | undefined;
}

export interface DatabaseOptions {
  readonly path: string;
  /** Finished calls that are kept; the oldest go first. */
  readonly keepCalls: number;
  /** Commands of which runs are kept, and runs that are kept of each. */
  readonly keepShapes: number;
  readonly keepRuns: number;
  /** Called with one sentence when a file was moved aside. */
  readonly onNotice: (notice: string) => void;
}

/**
 * How long another process may hold the file before a write counts as failed. The daemon keeps the
 * records and tries again, so this only bounds how long a query waits behind a write.
 */
const BUSY_MS = 1000;

/** The write-ahead log is cut back to this; SQLite checkpoints at about 4 MB by itself. */
const WAL_LIMIT_BYTES = 4 * 1024 * 1024;

/** SQLite result codes (sqlite.org/rescode.html) for a file that is not, or no longer, a database. */
const CORRUPT = 11;
const NOT_A_DATABASE = 26;

/**
 * The finished calls in one SQLite file, opened at the first use. Everything here waits for the disk: it
 * runs on a thread of its own. Errors are those of node:sqlite and node:fs, and what failed may be tried
 * again. A damaged file is moved aside (`.corrupt`) and a new one begun, and so is a file that a newer
 * version has written (`.newer`).
 */
export class Database {
  readonly #options: DatabaseOptions;
  #open: OpenDatabase | undefined;

  constructor(options: DatabaseOptions) {
    this.#options = options;
  }

  /** Stores rows in one transaction, all or none; one that is there already stays as it is. */
  write(rows: readonly Row[]): void {
    this.#use((db) => db.write(rows));
  }

  /** The `seq` from which the newest `limit` rows of the filter begin; undefined if there are none. */
  start(filter: Filter, limit: number): number | undefined {
    return this.#use((db) => db.start(filter, limit));
  }

  /** At most `limit` rows with `seq` or above, oldest first. */
  page(filter: Filter, seq: number, limit: number): StoredRow[] {
    return this.#use((db) => db.page(filter, seq, limit));
  }

  /** At most `limit` of what was learned, with an `id` above this, in its order. */
  learned(filter: LearnedFilter, id: number, limit: number): LearnedRow[] {
    return this.#use((db) => db.learned(filter, id, limit));
  }

  close(): void {
    this.#open?.close();
    this.#open = undefined;
  }

  /** Damage may show at any time, not only when the file is opened: the work is then done on a new one. */
  #use<T>(work: (db: OpenDatabase) => T): T {
    try {
      return work(this.#opened());
    } catch (error) {
      const suffix = error instanceof NewerSchemaError ? 'newer' : isDamage(error) ? 'corrupt' : undefined;
      if (suffix === undefined) throw error;
      this.close();
      this.#moveAside(suffix, messageOf(error));
      return work(this.#opened());
    }
  }

  #opened(): OpenDatabase {
    if (this.#open === undefined) {
      mkdirSync(dirname(this.#options.path), { recursive: true, mode: 0o750 });
      this.#open = new OpenDatabase(this.#options);
    }
    return this.#open;
  }

  /** One file of each kind is kept, so that repeated damage cannot fill the disk. */
  #moveAside(suffix: string, why: string): void {
    const { path, onNotice } = this.#options;
    renameSync(path, `${path}.${suffix}`);
    for (const tail of ['-wal', '-shm']) rmSync(path + tail, { force: true });
    onNotice(`${path}: ${why}; moved to ${path}.${suffix}`);
  }
}

class NewerSchemaError extends Error {}

function isDamage(error: unknown): boolean {
  if (!(error instanceof Error) || !('errcode' in error)) return false;
  // The low byte is the primary code; SQLITE_CORRUPT has extended ones.
  const code = Number(error.errcode) & 0xff;
  return code === CORRUPT || code === NOT_A_DATABASE;
}

class OpenDatabase {
  readonly #db: DatabaseSync;
  readonly #insert: StatementSync;
  readonly #prune: StatementSync;
  readonly #start: StatementSync;
  readonly #page: StatementSync;
  readonly #keepCalls: number;
  readonly #learning: LearnedTable;

  constructor(options: DatabaseOptions) {
    const { path, keepCalls } = options;
    // SQLite gives its side files the mode of the database: commands of all users stand in it.
    closeSync(openSync(path, 'a', 0o600));
    this.#keepCalls = keepCalls;
    this.#db = new DatabaseSync(path, { timeout: BUSY_MS });
    try {
      this.#prepareFile();
      this.#insert = this.#db.prepare(
        'INSERT INTO calls (id, session, uid, record) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING',
      );
      this.#prune = this.#db.prepare('DELETE FROM calls WHERE seq <= (SELECT max(seq) FROM calls) - ?');
      const matches = '($session IS NULL OR session = $session) AND ($uid IS NULL OR uid = $uid)';
      this.#start = this.#db.prepare(
        `SELECT min(seq) AS seq FROM (SELECT seq FROM calls WHERE ${matches} ORDER BY seq DESC LIMIT $limit)`,
      );
      this.#page = this.#db.prepare(
        `SELECT seq, id, record FROM calls WHERE seq >= $seq AND ${matches} ORDER BY seq LIMIT $limit`,
      );
      this.#learning = new LearnedTable(this.#db, options);
    } catch (error) {
      this.#db.close();
      throw error;
    }
  }

  write(rows: readonly Row[]): void {
    this.#transaction(() => {
      for (const { id, session, uid, json, run } of rows) {
        const { changes, lastInsertRowid } = this.#insert.run(id, session, uid, json);
        // Not twice, if it was written before and only its answer was lost.
        if (run !== undefined && changes > 0) this.#learning.add(uid, run, Number(lastInsertRowid));
      }
      this.#learning.prune();
      this.#prune.run(this.#keepCalls);
    });
  }

  start(filter: Filter, limit: number): number | undefined {
    const seq = this.#start.get({ ...parameters(filter), limit })?.seq;
    return typeof seq === 'number' ? seq : undefined;
  }

  page(filter: Filter, seq: number, limit: number): StoredRow[] {
    const rows = this.#page.all({ ...parameters(filter), seq, limit });
    return rows.map((row) => ({
      seq: Number(row.seq),
      id: String(row.id),
      json: String(row.record),
    }));
  }

  learned(filter: LearnedFilter, id: number, limit: number): LearnedRow[] {
    return this.#learning.page(filter, id, limit);
  }

  close(): void {
    this.#db.close();
  }

  #prepareFile(): void {
    // A commit is in the log before it is reported; a power cut may take the last ones, never the file.
    this.#db.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      PRAGMA journal_size_limit = ${WAL_LIMIT_BYTES};`);
    const problem = this.#pragma('quick_check(1)');
    if (problem !== 'ok') throw Object.assign(new Error(String(problem)), { errcode: CORRUPT });
    const found = this.#version();
    if (found > migrations.length) {
      throw new NewerSchemaError(
        `schema ${found} is newer than ${migrations.length}, which this version knows`,
      );
    }
    if (found === migrations.length) return;
    this.#transaction(() => {
      // Read once more: another process may have been quicker.
      for (const statements of migrations.slice(this.#version())) this.#db.exec(statements);
      this.#db.exec(`PRAGMA user_version = ${migrations.length}`);
    });
  }

  #version(): number {
    return Number(this.#pragma('user_version'));
  }

  #pragma(name: string): unknown {
    const row = this.#db.prepare(`PRAGMA ${name}`).get();
    return row === undefined ? undefined : Object.values(row)[0];
  }

  #transaction(work: () => void): void {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      work();
      this.#db.exec('COMMIT');
    } catch (error) {
      // A full disk or an I/O error may have rolled back already.
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }
}

function parameters(filter: Filter): { session: string | null; uid: number | null } {
  return { session: filter.session ?? null, uid: filter.uid ?? null };
}
