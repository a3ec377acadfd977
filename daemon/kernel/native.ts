// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';
import type { Native } from '../../native/agentrm.d.ts';
import { AgentrmError, messageOf } from '../errors.ts';
import { distDir } from '../own-program.ts';

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
