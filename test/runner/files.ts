// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type FileResult, failedFile, type TestResult } from './result.ts';

/** The checkout, without a slash at the end. */
export const top = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

const reporter = fileURLToPath(new URL('reporter.ts', import.meta.url));

/** The test files of a layer (paths from the checkout) whose path contains one of the filters, sorted. */
export function testFiles(layer: string, filters: readonly string[]): string[] {
  return globSync(`test/${layer}/**/*.test.ts`, { cwd: top, exclude: ['**/node_modules/**'] })
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
    .sort();
}

/**
 * Runs test files, each in a process of its own, and hands over each result when it is there.
 * @param files paths from the checkout
 * @param options.timeoutMs after which a file is killed with all it started and counts as failed
 * @param options.parallel how many files may run at the same time
 */
export async function runFiles(
  files: readonly string[],
  options: { timeoutMs: number; parallel: number },
  onResult: (result: FileResult) => void,
): Promise<void> {
  // What Node makes of the sources of tests and daemons is kept for the next file; emulated, it takes seconds.
  const cache = mkdtempSync(join(tmpdir(), 'agentrm-compiled-'));
  const env = { NODE_COMPILE_CACHE: cache, ...process.env };
  try {
    const queue = files.values();
    const worker = async () => {
      for (const file of queue) onResult(await runFile(file, options.timeoutMs, env));
    };
    await Promise.all(Array.from({ length: options.parallel }, worker));
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
}

// Groups of their own do not end with us: a run that is cut short takes them along.
const running = new Set<number>();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    for (const pid of running) killGroup(pid);
    process.kill(process.pid, signal);
  });
}

/**
 * What Node says when V8 fails a check of its own: on an emulated CPU it was seen to, of the pages of its compilers
 * ("Check failed: it->second.Size() > offset").
 */
const V8_FATAL = '# Fatal error in ';

/** A file is run once more if V8 has died before its first test. */
async function runFile(file: string, timeoutMs: number, env: NodeJS.ProcessEnv): Promise<FileResult> {
  const result = await runOnce(file, timeoutMs, env);
  const [end, ...others] = result.tests;
  const died = others.length === 0 && end?.detail === endedWith('SIGTRAP');
  if (!died || !result.output.includes(V8_FATAL)) return result;
  console.error(`${file}: V8 died before the first test; once more`);
  return await runOnce(file, timeoutMs, env);
}

async function runOnce(file: string, timeoutMs: number, env: NodeJS.ProcessEnv): Promise<FileResult> {
  const dir = mkdtempSync(join(tmpdir(), 'agentrm-test-'));
  const reportPath = join(dir, 'report');
  const started = performance.now();
  try {
    const child = spawn(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        `--test-reporter=${reporter}`,
        `--test-reporter-destination=${reportPath}`,
        file,
      ],
      // A process group of its own, so that a hung file can be killed with what it started.
      { cwd: top, env, stdio: ['ignore', 'pipe', 'pipe'], detached: true },
    );
    if (child.pid !== undefined) running.add(child.pid);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk;
      });
    }
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child.pid);
    }, timeoutMs);
    // Not 'close': a daemon that outlives its test would hold the pipes open.
    const [code, signal] = await once(child, 'exit');
    clearTimeout(timer);
    killGroup(child.pid);
    if (child.pid !== undefined) running.delete(child.pid);

    const durationMs = performance.now() - started;
    const tests = readReport(reportPath);
    const failed = tests.some(({ state }) => state === 'failed');
    if (timedOut || (!failed && code !== 0)) {
      const reason = timedOut
        ? `killed after ${timeoutMs / 1000} s`
        : endedWith(signal ?? `exit code ${code}`);
      return {
        ...failedFile(file, durationMs, reason, output),
        tests: [...tests, ...failedFile(file, 0, reason).tests],
      };
    }
    return { file, durationMs, tests, output: failed ? output : '' };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function endedWith(how: string): string {
  return `ended with ${how}`;
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group has ended, as it should have.
  }
}

function readReport(path: string): TestResult[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  // A file that was killed may have left half a line.
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as TestResult);
}
