// SPDX-License-Identifier: Apache-2.0

import { once } from 'node:events';
import { chmodSync } from 'node:fs';
import type { Server, ServerResponse } from 'node:http';
import { pathsOf } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { listenForScrapes } from '../control/scrape.ts';
import { assertAlone, makeRoomForSocket } from '../control/server.ts';
import type { Daemon } from '../daemon.ts';
import { AgentrmError, messageOf } from '../errors.ts';
import { createServer } from '../http.ts';
import type { Log } from '../log.ts';
import { version } from '../version.ts';
import { type Core, startCore } from './core.ts';
import { StateFile } from './state-file.ts';

/**
 * The core in a process of its own, without the node agent: no privileges, no addon, no cgroups. Health and
 * metrics are on the control socket all the same.
 * @throws AgentrmError if an address cannot be had.
 */
export async function startCoreAlone(config: Config, log: Log): Promise<Daemon> {
  const { proxy } = config;
  if (proxy.listen === null)
    throw new AgentrmError('AGENTRM_ERR_SOCKET', 'proxy.listen is off, and nothing else is to run');
  const paths = pathsOf(config, process.env, process.getuid?.() ?? 0);
  await assertAlone(paths.socket);
  const state = new StateFile(paths.stateDir, log);
  const core = await startCore({
    config: proxy,
    key: state.key.toString('base64'),
    saved: state.newest,
    log,
    keep: (text) => state.keep(text),
  });
  const control = createControl(core);
  try {
    await listenOnSocket(control, paths.socket);
  } catch (error) {
    // Agents are served all the same; a user without a runtime directory is none the worse for it.
    log.warn({ problem: messageOf(error) }, 'no control socket');
  }
  const scrapes = createControl(core);
  if (config.metrics.listen !== null) {
    await listenForScrapes(scrapes, config.metrics.listen).catch((error: unknown) =>
      log.error({ problem: messageOf(error) }, 'no metrics on TCP'),
    );
  }
  log.info({ mode: 'proxy-only', port: core.port, socket: paths.socket }, 'ready');

  return {
    reload() {
      throw new Error('the proxy takes a new configuration when it is started again');
    },
    reloadFailed() {},
    async close() {
      for (const server of [control, scrapes]) {
        server.close();
        server.closeAllConnections();
      }
      await core.close(proxy.drainMs);
      await state.close();
    },
  };
}

/** Health, metrics and the scheduler's picture of the moment. */
function createControl(core: Core): Server {
  return createServer((request, response) => {
    response.shouldKeepAlive = false;
    const path = request.url?.split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD')
      send(response, 405, 'only GET is answered here\n');
    else if (path === '/healthz' || path === '/readyz') send(response, 200, 'ok\n');
    else if (path === '/v1/turns')
      send(response, 200, `${JSON.stringify(core.snapshot())}\n`, 'application/json');
    else if (path === '/v1/status') {
      const status = { version: version(), pid: process.pid, mode: 'proxy-only', proxy: { port: core.port } };
      send(response, 200, `${JSON.stringify(status)}\n`, 'application/json');
    } else if (path === '/metrics') {
      core.metrics().then(
        (text) => send(response, 200, text, 'text/plain; version=0.0.4; charset=utf-8'),
        () => response.destroy(),
      );
    } else send(response, 404, `no such path: ${path}\n`);
  });
}

function send(response: ServerResponse, status: number, body: string, type = 'text/plain'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

async function listenOnSocket(server: Server, path: string): Promise<void> {
  makeRoomForSocket(path);
  server.listen(path);
  await once(server, 'listening');
  // Whoever can run agents here may know how their turns stand.
  chmodSync(path, 0o666);
}
