// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';
import type { Native } from '../../native/agentrm.d.ts';

/** Path of the built addon, for tests that load it in a process or thread of their own. */
export const addonPath = new URL('../../dist/agentrm.node', import.meta.url).pathname;

/** The built addon. */
export const native = createRequire(import.meta.url)(addonPath) as Native;

/** Fields of a failed system call, as `assert.throws` compares them. */
export function failure(code: string, syscall: string, path?: string): Record<string, unknown> {
  return path === undefined ? { code, syscall } : { code, syscall, path };
}
