// SPDX-License-Identifier: Apache-2.0
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs';
import type { Row } from './database.ts';

/**
 * What it may grow to while the database cannot be written: as much as the records that wait for that in memory. It is
 * in memory too, on the tmpfs of what runs.
 */
const MAX_BYTES = 16 * 1024 * 1024;

/**
 * Finished calls that are not in the database yet, one a line, where they outlive the daemon: what is killed within the
 * tenth of a second for which records wait for others would lose them. It must be on a file system in memory, for its
 * writes are waited for.
 */
export class Journal {
  readonly #path: string;
  readonly #fd: number;
  #bytes: number;

  /** @throws Error with errno if the file cannot be had, or is another user's. */
  constructor(path: string) {
    const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
    this.#path = path;
    this.#fd = openSync(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
    const { size, uid } = fstatSync(this.#fd);
    if (uid !== process.geteuid?.()) {
      closeSync(this.#fd);
      throw Object.assign(new Error(`${path}: belongs to uid ${uid}`), { code: 'EPERM' });
    }
    this.#bytes = size;
  }

  /** What an earlier daemon has left; a line that it was killed in is left out. */
  read(): Row[] {
    const rows: Row[] = [];
    if (this.#bytes === 0 || this.#bytes > 2 * MAX_BYTES) return rows;
    for (const line of readFileSync(this.#path, 'utf8').split('\n')) {
      try {
        const row = JSON.parse(line) as Row;
        if (typeof row.id === 'string' && typeof row.json === 'string') rows.push(row);
      } catch {
        // cut off, or empty
      }
    }
    return rows;
  }

  /** @throws Error with errno: the record is then in memory only. */
  add(row: Row): void {
    if (this.#bytes > MAX_BYTES) return;
    // The end of line first: the line before may be one that somebody was killed in.
    this.#bytes += writeSync(this.#fd, `\n${JSON.stringify(row)}`);
  }

  /** All of it is in the database. */
  clear(): void {
    if (this.#bytes === 0) return;
    ftruncateSync(this.#fd, 0);
    this.#bytes = 0;
  }

  /** @param keep for the next daemon, which finds in it what this one could not write. */
  close(keep: boolean): void {
    closeSync(this.#fd);
    if (!keep) rmSync(this.#path, { force: true });
  }
}
