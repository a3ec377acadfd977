// SPDX-License-Identifier: Apache-2.0

/** A source of the daemon by its path from this folder, without its extension: as it is (.ts) or as it was built. */
export function ownProgram(name: string): URL {
  const own = import.meta.url;
  return new URL(`./${name}${own.slice(own.lastIndexOf('.'))}`, own);
}

/**
 * What this process was started with to be quiet, for another Node beside it. The rest is for this one's memory, and
 * what that is does not fit another.
 */
export function quietOptions(): string[] {
  return process.execArgv.filter((argument) => argument.startsWith('--disable-warning'));
}
