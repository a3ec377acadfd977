// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { top } from './files.ts';
import { type FileResult, failedFile } from './result.ts';

interface Check {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

/** Runs every check whose name contains one of the filters; a check fails if its command does. */
export async function runLint(
  filters: readonly string[],
  onResult: (result: FileResult) => void,
): Promise<void> {
  const checks = [...generalChecks(), ...shellChecks(), ...compilerChecks()].filter(
    ({ name }) => filters.length === 0 || filters.some((filter) => name.includes(filter)),
  );
  const queue = checks.values();
  const worker = async () => {
    for (const check of queue) onResult(await runCheck(check));
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
}

function runCheck({ name, command: [program, ...args] }: Check): Promise<FileResult> {
  const started = performance.now();
  return new Promise((resolve) => {
    execFile(program, args, { cwd: top, maxBuffer: Number.POSITIVE_INFINITY }, (error, stdout, stderr) => {
      const durationMs = performance.now() - started;
      const passed = { name: [name], state: 'passed', durationMs, detail: '' } as const;
      resolve(
        error
          ? failedFile(name, durationMs, `${program} found something`, stdout + stderr)
          : { file: name, durationMs, tests: [passed], output: '' },
      );
    });
  });
}

function generalChecks(): Check[] {
  return [
    { name: 'biome', command: [join(top, '.tools/biome'), 'check', '--max-diagnostics=50'] },
    { name: 'types', command: [join(top, 'node_modules/.bin/tsc')] },
  ];
}

/** Everything that is a shell script by its first line. */
function shellChecks(): Check[] {
  return globSync(['.ci/*', 'deploy/**', 'wrapper/**', 'test/**'], {
    cwd: top,
    withFileTypes: true,
    exclude: (entry) => entry.name === 'node_modules' || entry.name === 'out' || entry.name === 'results',
  })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(top, join(entry.parentPath, entry.name)))
    .filter((file) => /^#!.*sh\b/.test(readFileSync(join(top, file), 'latin1').slice(0, 80)))
    .sort()
    .map((file) => ({ name: `shellcheck ${file}`, command: ['shellcheck', '--external-sources', file] }));
}

const clangWarnings = [
  '-Wall',
  '-Wextra',
  '-Wno-missing-field-initializers',
  '-Wshadow',

  '-Wformat-security',
  '-Werror',
];

/**
 * A second compiler over every C and C++ source, for what gcc does not see. The build has left its commands in
 * compile_commands.json.
 */
function compilerChecks(): Check[] {
  const entries = JSON.parse(readFileSync(join(top, 'build/cmake/compile_commands.json'), 'utf8')) as {
    command: string;
    file: string;
  }[];
  return entries.map(({ command, file }) => {
    // Include paths, definitions and the language standard; the rest is gcc's own affair. A value can follow in
    // the next word (-isystem DIR).
    const flags = command.match(/(?:-isystem |-I|-D|-std=)\S+/g)?.flatMap((flag) => flag.split(' ')) ?? [];
    return {
      name: `clang ${relative(top, file)}`,
      command: ['clang', '-fsyntax-only', ...clangWarnings, ...flags, file],
    };
  });
}
