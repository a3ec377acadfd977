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
  #fd: number;
  #bytes: number;

  /** @throws Error with errno if the file cannot be had, or is another user's. */
  constructor(path: string) {
    this.#path = path;
    ({ fd: this.#fd, bytes: this.#bytes } = open(path));
  }

  /** Somebody has removed the file: what is written reaches nobody. */
  get removed(): boolean {
    return fstatSync(this.#fd).nlink === 0;
  }

  /**
   * What an earlier daemon has left. A line that it was killed in is left out; so is one that is no record, as another
   * version may have written it, and those are counted: the database would refuse it each time, and all beside it.
   */
  read(): { rows: Row[]; unusable: number } {
    const rows: Row[] = [];
    let unusable = 0;
    if (this.#bytes === 0 || this.#bytes > 2 * MAX_BYTES) return { rows, unusable };
    for (const line of readFileSync(this.#path, 'utf8').split('\n')) {
      let value: unknown;
      try {
        value = JSON.parse(line);
      } catch {
        // cut off, or empty
        continue;
      }
      if (isRow(value)) rows.push(value);
      else unusable += 1;
    }
    return { rows, unusable };
  }

  /**
   * @returns whether it is in the file: not if that is full.
   * @throws Error with errno: the record is then in memory only.
   */
  add(row: Row): boolean {
    if (this.#bytes > MAX_BYTES) return false;
    // The end of line first: the line before may be one that somebody was killed in.
    this.#bytes += writeSync(this.#fd, `\n${JSON.stringify(row)}`);
    return true;
  }

  /**
   * Makes the file anew where it was.
   * @throws Error with errno if it cannot be had; to be tried again.
   */
  reopen(): void {
    const { fd, bytes } = open(this.#path);
    closeSync(this.#fd);
    this.#fd = fd;
    this.#bytes = bytes;
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

function open(path: string): { fd: number; bytes: number } {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
  const fd = openSync(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
  const { size, uid } = fstatSync(fd);
  if (uid === process.geteuid?.()) return { fd, bytes: size };
  closeSync(fd);
  throw Object.assign(new Error(`${path}: belongs to uid ${uid}`), { code: 'EPERM' });
}

function isRow(value: unknown): value is Row {
  const { id, session, uid, json, run } = fieldsOf(value);
  const named = isText(id) && isText(session) && Number.isSafeInteger(uid) && isText(json);
  return named && (run === undefined || isRun(run));
}

function isRun(value: unknown): boolean {
  const { repository, shape, endedAt, peakBytes, cutShort } = fieldsOf(value);
  const named = isText(repository) && isText(shape) && isText(endedAt);
  return named && Number.isSafeInteger(peakBytes) && typeof cutShort === 'boolean';
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}
