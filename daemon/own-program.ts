// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from 'node:url';

const own = import.meta.url;
const isSource = own.endsWith('.ts');
/** Where `daemon/` is, or what was built of it: esbuild gathers modules in files of its own, not all in one folder. */
const programs = new URL(own.slice(0, own.lastIndexOf('/daemon/') + '/daemon/'.length));

/** The folder of all that is built. */
export const distDir = fileURLToPath(new URL(isSource ? '../dist/' : '../', programs));

/** A program of the daemon by its path from its folder, without its extension: as it is (.ts) or as it was built. */
export function ownProgram(name: string): URL {
  return new URL(`./${name}${isSource ? '.ts' : '.js'}`, programs);
}

/**
 * What this process was started with to be quiet, for another Node beside it. The rest is for this one's memory, and
 * what that is does not fit another.
 */
export function quietOptions(): string[] {
  return process.execArgv.filter((argument) => argument.startsWith('--disable-warning'));
}
