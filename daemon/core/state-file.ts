// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';

const KEY_BYTES = 32;
/** Much more than the core ever says is not its state. */
const MAX_STATE_BYTES = 16 * 1024 * 1024;

/**
 * What of the core outlives its process: budgets and places, as the core wrote them and nobody else reads them,
 * and the key under which it names credentials (another key would be other names, and all of that lost). A file
 * and not SQLite: it is written whole every time, and read once.
 */
export class StateFile {
  readonly key: Buffer;
  readonly #path: string;
  readonly #log: Log;
  #newest: string | null;
  #writing: Promise<void> | undefined;
  #again = false;

  /**
   * @param stateDir is made if it is not there; where it cannot be written, everything is kept in memory, and
   *   the log says so.
   */
  constructor(stateDir: string, log: Log) {
    this.#path = join(stateDir, 'core-state.json');
    this.#log = log;
    this.key = keyIn(stateDir, log);
    this.#newest = read(this.#path);
  }

  /** What was kept last, by this process or an earlier one. */
  get newest(): string | null {
    return this.#newest;
  }

  /** Keeps it from now on, and writes it as soon as the last write is over. */
  keep(text: string): void {
    this.#newest = text;
    if (this.#writing !== undefined) {
      this.#again = true;
      return;
    }
    this.#writing = this.#write().finally(() => {
      this.#writing = undefined;
      if (this.#again && this.#newest !== null) {
        this.#again = false;
        this.keep(this.#newest);
      }
    });
  }

  /** Resolves when all that is kept is written, or cannot be. */
  async close(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      // Beside it first: who dies in between leaves the old one.
      await writeFile(`${this.#path}.new`, this.#newest ?? '', { mode: 0o600 });
      await rename(`${this.#path}.new`, this.#path);
    } catch (error) {
      this.#log.error({ problem: messageOf(error) }, 'state of the core not written');
    }
  }
}

function read(path: string): string | null {
  try {
    const text = readFileSync(path, 'utf8');
    return text.length > 0 && text.length <= MAX_STATE_BYTES && !text.includes('\n') ? text : null;
  } catch {
    return null;
  }
}

function keyIn(stateDir: string, log: Log): Buffer {
  const path = join(stateDir, 'core-key');
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o755 });
    try {
      writeFileSync(path, randomBytes(KEY_BYTES), { mode: 0o600, flag: 'wx' });
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    const key = readFileSync(path);
    if (key.length === KEY_BYTES) return key;
    log.error({ path }, 'not a key: names of credentials change with every start');
  } catch (error) {
    log.warn({ problem: messageOf(error) }, 'no key kept: names of credentials change with every start');
  }
  return randomBytes(KEY_BYTES);
}
