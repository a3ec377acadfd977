// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Native } from '../../native/agentrm.d.ts';
import { AgentrmError, messageOf } from '../errors.ts';

export type {
  Bpf,
  BpfEvent,
  BpfProbe,
  CallStats,
  Heartbeat,
  Native,
  PeerCred,
  Policy,
  Watch,
} from '../../native/agentrm.d.ts';

/**
 * The folder of the built parts: `dist/`, seen from `daemon/kernel` (tests, types stripped) and from
 * `dist/daemon/kernel` alike.
 */
export const distDir = fileURLToPath(
  import.meta.url.includes('/dist/daemon/')
    ? new URL('../../', import.meta.url)
    : new URL('../../dist/', import.meta.url),
);

let loaded: Native | undefined;

/**
 * The native addon, loaded once.
 * @throws AgentrmError AGENTRM_ERR_NATIVE if it was not built or does not load here.
 */
export function native(): Native {
  if (loaded === undefined) {
    const path = `${distDir}agentrm.node`;
    try {
      loaded = createRequire(import.meta.url)(path) as Native;
    } catch (error) {
      throw new AgentrmError('AGENTRM_ERR_NATIVE', `load ${path}: ${messageOf(error)}`, error);
    }
  }
  return loaded;
}
