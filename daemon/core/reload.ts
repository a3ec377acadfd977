// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from 'node:util';
import type { ProxyConfig } from '../config/proxy.ts';

/** What of a new configuration can be in force, and what has to wait. */
export interface Reloadable {
  readonly config: ProxyConfig;
  /** Settings that changed and take a restart, by their names in the configuration. */
  readonly restart: readonly string[];
}

/**
 * A new configuration over the one in force. What it says of the address, the user and the order of the queue is left
 * out: clients hold connections to the one, the process runs as the other, and turns wait in the third.
 */
export function reloadable(current: ProxyConfig, next: ProxyConfig): Reloadable {
  const { listen, user, queue } = current;
  const config = { ...next, listen, user, queue: { ...next.queue, policy: queue.policy } };
  const kept: readonly (readonly [name: string, before: unknown, after: unknown])[] = [
    ['proxy.listen', listen, next.listen],
    ['proxy.user', user, next.user],
    ['proxy.queue.policy', queue.policy, next.queue.policy],
  ];
  const restart = kept.filter(([, before, after]) => !isDeepStrictEqual(before, after)).map(([name]) => name);
  return { config, restart };
}
