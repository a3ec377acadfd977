// SPDX-License-Identifier: Apache-2.0
import { availableParallelism } from 'node:os';
import { basename } from 'node:path';
import { runFiles, testFiles } from './files.ts';
import { runLint } from './lint.ts';
import { printFile } from './print.ts';
import type { FileResult, LayerResult } from './result.ts';
import { missingForVm, runInVm } from './vm.ts';

interface FileLayer {
  /** For one file: a multiple of what the slowest takes on two emulated cores, so that only a hang reaches it. */
  readonly timeoutMs: number;
  readonly parallel: number;
}

// Files of the kernel layer share the machine's cgroups and BPF, real agents its memory; the others share nothing.
const cores = availableParallelism();
const fileLayers: Record<string, FileLayer> = {
  unit: { timeoutMs: 120_000, parallel: cores },
  native: { timeoutMs: 120_000, parallel: cores },
  wrapper: { timeoutMs: 240_000, parallel: cores },
  daemon: { timeoutMs: 240_000, parallel: cores },
  proxy: { timeoutMs: 240_000, parallel: cores },
  kernel: { timeoutMs: 600_000, parallel: 1 },
  systemd: { timeoutMs: 600_000, parallel: 1 },
  clients: { timeoutMs: 240_000, parallel: 1 },
};

/** Names of all layers, in the order in which they run: what fails soonest comes first. */
export const layerNames: readonly string[] = ['lint', ...Object.keys(fileLayers)];

// All files of a layer on one kernel take a quarter of an hour here; machines differ, and some are busy.
const vmTimeoutMs = 2_400_000;
// Client tests of managed calls need a kernel that can enforce, as the units do. One is enough, the kernel layer has
// all three.
const managedClients = /-managed\.test\.ts$/;
const stableKernel = '6.12';
// What is the daemon's doing and asks nothing of the kernel that other files do not ask: with all kernels to run, one is
// enough, so that the whole fits into the 45 minutes of a CI run.
const onStableOnly = [
  'both-halves.test.ts',
  'container.test.ts',
  'container-others.test.ts',
  'cpu.test.ts',
  'crashes.test.ts',
  'endings.test.ts',
  'escapes.test.ts',
  'guard.test.ts',
  'hazards.test.ts',
  'host-trouble.test.ts',
  'learning.test.ts',
  'recovery.test.ts',
  'replay.test.ts',
  'shortage-no-bpf.test.ts',
  'user-endings.test.ts',
  'user-mode.test.ts',
  'user-shortage.test.ts',
];

export interface LayerOptions {
  readonly filters: readonly string[];
  readonly kernels: readonly string[];
  /** Run what needs a kernel that can enforce on this machine and not in virtual machines. */
  readonly here: boolean;
  /** Called for every file as soon as its result is there. */
  readonly onResult: (results: readonly FileResult[]) => void;
}

/** Runs a layer wherever it has to run: one result for each machine. */
export async function runLayer(name: string, options: LayerOptions): Promise<LayerResult[]> {
  const { filters, here, kernels } = options;
  if (name === 'lint') return [await onThisMachine(name, options, (onResult) => runLint(filters, onResult))];

  const layer = fileLayers[name];
  if (!layer) throw new Error(`no layer ${name}`);
  const files = testFiles(name, filters);
  const runHere = (chosen: readonly string[]) =>
    onThisMachine(name, options, (onResult) => runFiles(chosen, layer, onResult));
  if (here) return [await runHere(files)];
  if (name === 'kernel') {
    const results: LayerResult[] = [];
    const others = kernels.includes(stableKernel)
      ? files.filter((file) => !onStableOnly.includes(basename(file)))
      : files;
    for (const kernel of kernels) {
      results.push(await onKernel(name, kernel, kernel === stableKernel ? files : others));
    }
    return results;
  }
  if (name === 'systemd') return [await onKernel(name, stableKernel, files, { systemd: true })];
  const managed = name === 'clients' ? files.filter((file) => managedClients.test(file)) : [];
  const results = [await runHere(files.filter((file) => !managed.includes(file)))];
  if (managed.length > 0) results.push(await onKernel(name, stableKernel, managed));
  return results;
}

async function onThisMachine(
  name: string,
  options: LayerOptions,
  run: (onResult: (result: FileResult) => void) => Promise<void>,
): Promise<LayerResult> {
  console.log(`${name}:`);
  const started = performance.now();
  const files: FileResult[] = [];
  await run((result) => {
    printFile(result);
    files.push(result);
    options.onResult(files);
  });
  return { name, durationMs: performance.now() - started, files };
}

async function onKernel(
  layer: string,
  kernel: string,
  files: readonly string[],
  options: { systemd?: boolean } = {},
): Promise<LayerResult> {
  const name = `${layer} ${kernel}`;
  if (files.length === 0) return { name, durationMs: 0, files: [] };
  console.log(`${name}:`);
  const missing = missingForVm();
  if (missing !== null) {
    const skipped = { name: [name], state: 'skipped', durationMs: 0, detail: missing } as const;
    return { name, durationMs: 0, files: [{ file: name, durationMs: 0, tests: [skipped], output: '' }] };
  }
  const started = performance.now();
  const results = await runInVm(layer, kernel, files, { ...options, timeoutMs: vmTimeoutMs });
  return { name, durationMs: performance.now() - started, files: results };
}
