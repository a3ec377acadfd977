// SPDX-License-Identifier: Apache-2.0

/** What became of one test. */
export interface TestResult {
  /** Its own name after those of the suites around it. */
  readonly name: readonly string[];
  readonly state: 'passed' | 'failed' | 'skipped';
  readonly durationMs: number;
  /** Of a failed test the error, of a skipped one the reason, else empty. */
  readonly detail: string;
}

/** What became of the tests of one file, or of one check that is not a test file. */
export interface FileResult {
  /** Path from the checkout, or the name of the check. */
  readonly file: string;
  readonly durationMs: number;
  readonly tests: readonly TestResult[];
  /** What the file wrote to stdout and stderr, if a test in it failed. */
  readonly output: string;
}

/** What became of a layer on one machine. */
export interface LayerResult {
  /** For example `unit`, or `kernel 6.1`. */
  readonly name: string;
  readonly durationMs: number;
  readonly files: readonly FileResult[];
}

/** A file whose whole content failed, with one failed test that says why. */
export function failedFile(file: string, durationMs: number, reason: string, output = ''): FileResult {
  return { file, durationMs, tests: [{ name: [file], state: 'failed', durationMs, detail: reason }], output };
}

/** How many tests of these files ended in a state. */
export function count(files: readonly FileResult[], state: TestResult['state']): number {
  return files.flatMap(({ tests }) => tests).filter((test) => test.state === state).length;
}
