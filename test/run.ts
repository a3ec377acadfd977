// SPDX-License-Identifier: Apache-2.0
import { parseArgs } from 'node:util';
import { layerNames, runLayer } from './runner/layers.ts';
import { printFile, printSummary } from './runner/print.ts';
import { count, failedFile, type LayerResult } from './runner/result.ts';
import { debianKernels, writeResults } from './runner/vm.ts';

const usage = `usage: node test/run.ts [--layer LAYER]... [--kernel SERIES]... [--here] [FILTER]...

  --layer    ${layerNames.join(', ')}; default all
  --kernel   ${debianKernels.join(', ')}; for the kernel layer, default all
  --here     run the kernel layer on this machine, not in virtual machines
  --results  also write the results to this file, again after each test file
  FILTER     only files whose path contains one of these

With CI or REQUIRE_ALL=1 in the environment, a layer that could not run counts as failed.`;

const { values, positionals: filters } = readArgs();
const strict = Boolean(process.env.CI) || process.env.REQUIRE_ALL === '1';
const results: LayerResult[] = [];
for (const name of values.layer ?? layerNames) {
  const ran = await runLayer(name, {
    filters,
    kernels: values.kernel ?? debianKernels,
    here: values.here ?? false,
    onResult: (files) => {
      if (values.results) writeResults(values.results, { complete: false, files });
    },
  });
  results.push(...ran.map(withoutSilence));
}
const files = results.flatMap((layer) => layer.files);
// In a guest the machine outside sums up.
if (values.results) writeResults(values.results, { complete: true, files });
else printSummary(results);
process.exitCode = count(files, 'failed') > 0 ? 1 : 0;

/** A layer that ran nothing must not look like one that passed. */
function withoutSilence(layer: LayerResult): LayerResult {
  const ran = count(layer.files, 'passed') + count(layer.files, 'failed');
  const skipped = count(layer.files, 'skipped') > 0;
  if (ran > 0 || (skipped && !strict) || (filters.length > 0 && !skipped)) return layer;
  const failure = failedFile(layer.name, 0, skipped ? 'all of it was skipped' : 'it has no tests');
  printFile(failure);
  return { ...layer, files: [...layer.files, failure] };
}

function readArgs() {
  try {
    const args = parseArgs({
      options: {
        layer: { type: 'string', multiple: true },
        kernel: { type: 'string', multiple: true },
        here: { type: 'boolean' },
        results: { type: 'string' },
      },
      allowPositionals: true,
    });
    for (const layer of args.values.layer ?? []) {
      if (!layerNames.includes(layer)) throw new Error(`no layer ${layer}`);
    }
    return args;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`);
    process.exit(2);
  }
}
