// SPDX-License-Identifier: Apache-2.0
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Row } from './database.ts';
import { Journal } from './journal.ts';

/** The journal of a daemon that goes on without one: what is wrong with it is told once, and what it lacks is counted. */
export class JournalKeeper {
  readonly #path: string | undefined;
  readonly #log: Log;
  #journal: Journal | undefined;
  #failing = false;
  #unjournaled = 0;

  /** @param path on a file system in memory; undefined: there is none. */
  constructor(path: string | undefined, log: Log) {
    this.#path = path;
    this.#log = log;
    try {
      if (path !== undefined) this.#journal = new Journal(path);
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Records that are in memory only: it could not be written, or was full. */
  get unjournaled(): number {
    return this.#unjournaled;
  }

  /**
   * What an earlier daemon has left.
   * @param most how many at most: the newest.
   * @returns those, oldest first, and how many records there were beside them.
   */
  read(most: number): { readonly rows: readonly Row[]; readonly lost: number } {
    try {
      const { rows, unusable, older } = this.#journal?.read() ?? { rows: [], unusable: 0, older: 0 };
      const tooMany = older + Math.max(0, rows.length - most);
      const journal = this.#path;
      if (unusable > 0)
        this.#log.warn({ journal, unusable }, 'finished calls of an earlier daemon cannot be read');
      if (tooMany > 0)
        this.#log.warn({ journal, lost: tooMany }, 'an earlier daemon left too many finished calls');
      return { rows: rows.slice(-most), lost: unusable + tooMany };
    } catch (error) {
      this.#failed(error);
      return { rows: [], lost: 0 };
    }
  }

  add(row: Row): void {
    if (this.#journal === undefined) return;
    try {
      if (this.#journal.add(row)) return;
      this.#failed(new Error('the journal is full'));
    } catch (error) {
      this.#failed(error);
    }
    this.#unjournaled += 1;
  }

  /** Makes it anew, with these records, if somebody has removed it. */
  restore(rows: readonly Row[]): void {
    const journal = this.#journal;
    try {
      if (!journal?.removed) return;
      journal.reopen();
      this.#failing = false;
    } catch (error) {
      this.#failed(error);
      return;
    }
    for (const row of rows) this.add(row);
  }

  /** All of it is in the file. */
  clear(): void {
    try {
      this.#journal?.clear();
    } catch (error) {
      this.#failed(error);
    }
  }

  /**
   * What is still under way has nothing to do with it any more.
   * @param keep for the next daemon.
   * @returns whether that will find it.
   */
  close(keep: boolean): boolean {
    const journal = this.#journal;
    const kept = journal !== undefined && !journal.removed;
    this.#journal = undefined;
    journal?.close(keep);
    return kept;
  }

  /** It is only for a daemon that is killed: this one goes on without. */
  #failed(error: unknown): void {
    if (this.#failing) return;
    this.#failing = true;
    this.#log.warn({ reason: messageOf(error) }, 'finished calls that wait are lost if the daemon is killed');
  }
}
