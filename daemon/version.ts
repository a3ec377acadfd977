// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

let known: string | undefined;

/**
 * The version in package.json, which stands above the sources as well as above what is built from them.
 * @throws Error if there is no package.json.
 */
export function version(): string {
  known ??= readVersion(import.meta.dirname);
  return known;
}

function readVersion(directory: string): string {
  const path = join(directory, 'package.json');
  if (!existsSync(path)) {
    const parent = dirname(directory);
    if (parent === directory) throw new Error(`no package.json above ${import.meta.dirname}`);
    return readVersion(parent);
  }
  const content: unknown = JSON.parse(readFileSync(path, 'utf8'));
  if (typeof content === 'object' && content !== null && 'version' in content) return String(content.version);
  throw new Error(`read ${path}: no version`);
}
