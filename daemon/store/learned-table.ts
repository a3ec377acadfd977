// SPDX-License-Identifier: Apache-2.0
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { Observation } from '../policy/learned.ts';
import type { CommandRun, DatabaseOptions, LearnedFilter, LearnedRow } from './database.ts';

/** What runs of commands needed: one row for each command in each repository of each user. */
export class LearnedTable {
  readonly #find: StatementSync;
  readonly #put: StatementSync;
  readonly #count: StatementSync;
  readonly #prune: StatementSync;
  readonly #page: StatementSync;
  readonly #keepShapes: number;
  readonly #keepRuns: number;
  #rows: number;

  constructor(db: DatabaseSync, { keepShapes, keepRuns }: Pick<DatabaseOptions, 'keepShapes' | 'keepRuns'>) {
    this.#keepShapes = keepShapes;
    this.#keepRuns = keepRuns;
    this.#find = db.prepare('SELECT peaks FROM learned WHERE uid = ? AND repository = ? AND shape = ?');
    this.#put = db.prepare(
      `INSERT INTO learned (uid, repository, shape, last, lastRunAt, peaks) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (uid, repository, shape)
       DO UPDATE SET last = excluded.last, lastRunAt = excluded.lastRunAt, peaks = excluded.peaks`,
    );
    this.#count = db.prepare('SELECT count(*) AS rows FROM learned');
    this.#prune = db.prepare(
      'DELETE FROM learned WHERE id IN (SELECT id FROM learned ORDER BY last DESC LIMIT -1 OFFSET ?)',
    );
    const matches =
      '($uid IS NULL OR uid = $uid) AND ($repository IS NULL OR repository = $repository)' +
      ' AND ($shape IS NULL OR shape = $shape)';
    this.#page = db.prepare(
      `SELECT id, uid, repository, shape, lastRunAt, peaks FROM learned
       WHERE id > $id AND ${matches} ORDER BY id LIMIT $limit`,
    );
    this.#rows = this.#counted();
  }

  /** @param seq of the call, by which the rows are in the order of their use. */
  add(uid: number, { repository, shape, peakBytes, cutShort, endedAt }: CommandRun, seq: number): void {
    const found = this.#find.get(uid, repository, shape);
    const peaks = [...(found === undefined ? [] : parse(found.peaks)), [peakBytes, cutShort ? 1 : 0]];
    this.#put.run(uid, repository, shape, seq, endedAt, JSON.stringify(peaks.slice(-this.#keepRuns)));
    if (found === undefined) this.#rows += 1;
  }

  /** Looks only if there may be too many. A transaction that is rolled back puts the number off by a batch at most. */
  prune(): void {
    if (this.#rows <= this.#keepShapes) return;
    this.#prune.run(this.#keepShapes);
    this.#rows = this.#counted();
  }

  page({ uid, repository, shape }: LearnedFilter, id: number, limit: number): LearnedRow[] {
    const filter = { uid: uid ?? null, repository: repository ?? null, shape: shape ?? null };
    return this.#page.all({ ...filter, id, limit }).map((row) => ({
      id: Number(row.id),
      uid: Number(row.uid),
      repository: String(row.repository),
      shape: String(row.shape),
      lastRunAt: String(row.lastRunAt),
      observations: parse(row.peaks).map(
        ([peakBytes = 0, cut]): Observation => ({ peakBytes, cutShort: cut === 1 }),
      ),
    }));
  }

  #counted(): number {
    return Number(this.#count.get()?.rows);
  }
}

function parse(peaks: unknown): number[][] {
  return JSON.parse(String(peaks));
}
