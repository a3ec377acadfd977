// SPDX-License-Identifier: Apache-2.0
import type { Server } from 'node:http';

/** Prometheus, a load balancer that asks for health, and a few people. */
const MAX_CONNECTIONS = 64;

/** A request that takes longer to come is no scrape; node would wait for 60 s and 300 s. */
const REQUEST_MS = 10_000;

/**
 * Lets an API listen on TCP too, where it answers with metrics and health only.
 * @throws Error with errno, address and port.
 */
export function listenForScrapes(api: Server, address: { host: string; port: number }): Promise<void> {
  api.maxConnections = MAX_CONNECTIONS;
  api.headersTimeout = REQUEST_MS;
  api.requestTimeout = REQUEST_MS;
  return new Promise((resolve, reject) => {
    api.once('error', reject);
    api.listen(address, () => {
      api.off('error', reject);
      // EMFILE: what came is closed, and the next one is accepted again.
      api.on('error', () => {});
      resolve();
    });
  });
}
