// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { deserialize } from 'node:v8';
import { ownProgram, quietOptions } from '../own-program.ts';
import type { Config } from './schema.ts';

/** What config-main.ts writes to its descriptor 3; nothing if all has been said, as with `--help`. */
export type Reading =
  | {
      readonly ok: true;
      readonly config: Config;
      readonly proxyOnly: boolean;
      readonly untilStdinEnds: boolean;
      /** Of the program that has read it. */
      readonly version: string;
    }
  /** One line each. */
  | { readonly ok: false; readonly problems: readonly string[] };

/** It has nothing to say; it ended so. */
export interface NothingRead {
  readonly exitCode: number;
}

/**
 * Reads the command line and the configuration in a process of its own, which is gone when it has. What it takes to
 * read them (YAML, the schema with all its texts, the command line's own) is 14 MB that would stay in the daemon.
 * @param args the command line, without program.
 * @throws Error if there can be no such process.
 */
export async function readConfig(args: readonly string[]): Promise<Reading | NothingRead> {
  const program = fileURLToPath(ownProgram('config-main'));
  const child = spawn(process.execPath, [...quietOptions(), program, ...args], {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
  });
  const chunks: Buffer[] = [];
  child.stdio[3]?.on('data', (chunk: Buffer) => chunks.push(chunk));
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === null) reject(new Error(`reading the configuration was ended by ${signal}`));
      else resolve(code);
    });
  });
  // A whole answer, or none that counts: what fails on the way ends with another status.
  return chunks.length > 0 && exitCode === 0 ? (deserialize(Buffer.concat(chunks)) as Reading) : { exitCode };
}
