// SPDX-License-Identifier: Apache-2.0
import { count, type FileResult, type LayerResult } from './result.ts';

/** One line for a file, and in full what failed in it. */
export function printFile(result: FileResult): void {
  const failed = count([result], 'failed');
  const verdict = failed > 0 ? 'FAIL' : 'ok';
  const skipped = count([result], 'skipped');
  const counts = `${count([result], 'passed')}${failed > 0 ? `, ${failed} failed` : ''}${skipped > 0 ? `, ${skipped} skipped` : ''}`;
  console.log(`  ${verdict.padEnd(5)}${result.file.padEnd(52)} ${counts}  ${seconds(result.durationMs)}`);
  for (const test of result.tests) {
    if (test.state === 'failed') console.log(indent(`${test.name.join(' > ')}\n${indent(test.detail)}`, 7));
  }
  if (result.output.trim() !== '') console.log(indent(`output:\n${indent(result.output.trimEnd())}`, 7));
}

/** Every skipped test with its reason, the time of each layer, and the sum as the last line. */
export function printSummary(layers: readonly LayerResult[]): void {
  for (const { name, files } of layers) {
    for (const { file, tests } of files) {
      for (const test of tests) {
        if (test.state !== 'skipped') continue;
        console.log(
          `skipped: ${name}: ${file}: ${test.name.join(' > ')}: ${test.detail || 'no reason given'}`,
        );
      }
    }
  }
  for (const { name, files, durationMs } of layers) {
    console.log(`${name.padEnd(14)} ${sum(files).padEnd(40)} ${seconds(durationMs)}`);
  }
  console.log(sum(layers.flatMap(({ files }) => files)));
}

function sum(files: readonly FileResult[]): string {
  const skipped = count(files, 'skipped');
  const tail = skipped > 0 ? `, ${skipped} skipped` : '';
  return `${count(files, 'passed')} passed, ${count(files, 'failed')} failed${tail}`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

function indent(text: string, columns = 2): string {
  return text.replaceAll(/^(?=.)/gm, ' '.repeat(columns));
}
