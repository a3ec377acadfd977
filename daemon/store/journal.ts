// SPDX-License-Identifier: Apache-2.0
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import type { Row } from './database.ts';

/**
 * What it may grow to while the database cannot be written: as much as the records that wait for that in memory. It is
 * in memory too, on the tmpfs of what runs.
 */
const MAX_BYTES = 16 * 1024 * 1024;
/** What is read of one that is larger: its end, where the newest are. More would be no work of this daemon's. */
const READ_BYTES = 2 * MAX_BYTES;
/** In which what is not read is looked through for the ends of lines. */
const CHUNK_BYTES = 64 * 1024;
const LINE_END = 10;

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
   * @returns the records, oldest first; how many lines were none; and how many there were before those, not read
   *   because the file is too large.
   * @throws Error with errno if it cannot be read.
   */
  read(): { readonly rows: readonly Row[]; readonly unusable: number; readonly older: number } {
    const rows: Row[] = [];
    let unusable = 0;
    const start = Math.max(0, this.#bytes - READ_BYTES);
    const older = this.#lineEnds(start);
    const lines = this.#text(start).split('\n');
    // It began before: the end of line that it has in front is counted.
    if (start > 0) lines.shift();
    for (const line of lines) {
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
    return { rows, unusable, older };
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

  /** From an offset to the end. */
  #text(start: number): string {
    const bytes = Buffer.allocUnsafe(this.#bytes - start);
    let length = 0;
    for (;;) {
      const more = readSync(this.#fd, bytes, length, bytes.length - length, start + length);
      length += more;
      if (more === 0) return bytes.toString('utf8', 0, length);
    }
  }

  /** How many there are up to an offset. */
  #lineEnds(end: number): number {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end));
    let count = 0;
    for (let at = 0; at < end; ) {
      const length = readSync(this.#fd, chunk, 0, Math.min(chunk.length, end - at), at);
      if (length === 0) break;
      for (const byte of chunk.subarray(0, length)) if (byte === LINE_END) count += 1;
      at += length;
    }
    return count;
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
