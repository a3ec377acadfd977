// SPDX-License-Identifier: Apache-2.0
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { top } from './files.ts';
import { printFile } from './print.ts';
import { type FileResult, failedFile } from './result.ts';

/** Debian's stock kernels that every release is tested on. */
export const debianKernels: readonly string[] = ['6.1', '6.12', '7.2'];

/** Why this machine cannot start a guest, or null if it can. */
export function missingForVm(): string | null {
  if (process.arch !== 'x64') return `the guest runs the programs of this machine, which is ${process.arch}`;
  const { error } = spawnSync('qemu-system-x86_64', ['--version']);
  return error ? 'no QEMU here: make setup installs it' : null;
}

/** What test/vm/run ends with if the emulator has broken its guest. */
const BROKEN_BY_EMULATOR = 123;

interface VmOptions {
  /** For the machine, from start to end. */
  readonly timeoutMs: number;
  /** As process 1. */
  readonly systemd?: boolean;
}

/**
 * Runs test files of one layer inside one virtual machine, which is booted once for all of them. The guest prints
 * each result as it comes. What the emulator has broken is gone on with in another, once.
 * @returns the results of the files that ran; one that failed is added if the machine did not end by itself
 */
export async function runInVm(
  layer: string,
  kernel: string,
  files: readonly string[],
  options: VmOptions,
): Promise<readonly FileResult[]> {
  const first = await boot(layer, kernel, files, options);
  if (first.code !== BROKEN_BY_EMULATOR) return first.end();
  const left = files.slice(first.ran.length);
  console.error(`${left[0]}: the emulator broke the machine; once more from here on`);
  const second = await boot(layer, kernel, left, options);
  return [...first.ran, ...second.end()];
}

async function boot(layer: string, kernel: string, files: readonly string[], options: VmOptions) {
  const out = process.env.OUT ?? join(top, 'test/vm/out');
  mkdirSync(out, { recursive: true });
  const resultsPath = join(out, `results-${layer}-${kernel}-${process.pid}.json`);
  const started = performance.now();
  const child = spawn(
    join(top, 'test/vm/run'),
    [
      ...['--kernel', kernel, '--timeout', String(options.timeoutMs / 1000), '--time'],
      ...(options.systemd ? ['--systemd', '--'] : ['--']),
      ...['node', 'test/run.ts', '--here', '--layer', layer, '--results', resultsPath, ...files],
    ],
    { cwd: top, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, OUT: out } },
  );
  const [code, signal] = await once(child, 'exit');
  const durationMs = performance.now() - started;

  const results = readResults(resultsPath);
  rmSync(resultsPath, { force: true });
  const ran = results.files;
  const end = (): readonly FileResult[] => {
    if (results.complete) return ran;
    const reason = `the machine ended with ${signal ?? `status ${code}`} after ${ran.length} files`;
    const failure = failedFile(`virtual machine, kernel ${kernel}`, durationMs, reason);
    printFile(failure);
    return [...ran, failure];
  };
  return { code, ran, end };
}

/** What a run inside a guest leaves for the run outside, again after each file. */
interface GuestResults {
  readonly complete: boolean;
  readonly files: readonly FileResult[];
}

/** Leaves the results of a run inside a guest at `path`. */
export function writeResults(path: string, results: GuestResults): void {
  writeFileSync(path, JSON.stringify(results));
}

function readResults(path: string): GuestResults {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as GuestResults;
  } catch {
    // The guest did not get so far, or died while it wrote.
    return { complete: false, files: [] };
  }
}
