// SPDX-License-Identifier: Apache-2.0
import { readdirSync } from 'node:fs';
import { request } from 'node:http';
import { text } from 'node:stream/consumers';
import type { Monitor, ProxyMonitor } from '../../../daemon/control/types.ts';
import { type CoreServer, startCore } from '../proxy/servers.ts';
import type { Models } from './model.ts';

/** A core of its own before the models, and what it says of itself. */
export class Core {
  readonly #server: CoreServer;

  private constructor(server: CoreServer) {
    this.#server = server;
  }

  /** @param settings of its configuration file; none: as it is shipped */
  static async start(models: Models, settings = ''): Promise<Core> {
    return new Core(await startCore(models.url, settings));
  }

  get url(): string {
    return this.#server.origin;
  }

  get descriptors(): number {
    return readdirSync(`/proc/${this.#server.pid}/fd`).length;
  }

  rssBytes(): number {
    return this.#server.rssBytes();
  }

  /** Lanes, queues and limits of the moment. */
  async turns(): Promise<ProxyMonitor> {
    const { proxy } = JSON.parse(await this.#get('/v1/monitor')) as Monitor;
    if (proxy === null) throw new Error('the core does not answer');
    return proxy;
  }

  /** All series of a counter together. */
  async counted(name: string): Promise<number> {
    let sum = 0;
    for (const [, value] of (await this.#get('/metrics')).matchAll(
      new RegExp(`^${name}(?:{.*})? (\\S+)$`, 'gm'),
    )) {
      sum += Number(value);
    }
    return sum;
  }

  close(): Promise<void> {
    return this.#server.close();
  }

  async #get(path: string): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    request({ socketPath: this.#server.socket, path }, (response) => text(response).then(resolve, reject))
      .once('error', reject)
      .end();
    return promise;
  }
}
