// SPDX-License-Identifier: Apache-2.0

import { once } from 'node:events';
import { chmodSync } from 'node:fs';
import type { Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { release } from 'node:os';
import { nowMs } from '../clock.ts';
import { pathsOf } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { hostPicture } from '../control/host-picture.ts';
import { isOperator } from '../control/operators.ts';
import { userOf } from '../control/peer.ts';
import { listenForScrapes } from '../control/scrape.ts';
import { assertAlone, makeRoomForSocket } from '../control/server.ts';
import type { Monitor, Status } from '../control/types.ts';
import type { Daemon } from '../daemon.ts';
import { AgentrmError, messageOf } from '../errors.ts';
import { createServer } from '../http.ts';
import { hostPressure } from '../kernel/host.ts';
import { native } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import { isOf } from '../session/name.ts';
import { sessionRecords } from '../session/picture.ts';
import { version } from '../version.ts';
import { type Core, startCore } from './core.ts';
import { reloadable } from './reload.ts';
import { StateFile } from './state-file.ts';

/** PSI is an average over 10 s; the scheduler need not know sooner. */
const LOOK_MS = 1_000;

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
  // Without the node agent nobody says how the host stands; everybody may look.
  const look = (): void =>
    core.setPressure({ memory: (hostPressure('memory')?.someAvg10 ?? 0) / 100, poolShort: false });
  look();
  const timer = setInterval(look, LOOK_MS);
  const startedMs = nowMs();
  const status = () => statusOf(paths.socket, core.port, startedMs);
  const control = createControl(core, status);
  try {
    await listenOnSocket(control, paths.socket);
  } catch (error) {
    // Agents are served all the same; a user without a runtime directory is none the worse for it.
    log.warn({ problem: messageOf(error) }, 'no control socket');
  }
  const scrapes = createControl(core, status);
  if (config.metrics.listen !== null) {
    await listenForScrapes(scrapes, config.metrics.listen).catch((error: unknown) =>
      log.error({ problem: messageOf(error) }, 'no metrics on TCP'),
    );
  }
  let inForce = proxy;
  log.info({ mode: 'proxy-only', port: core.port, socket: paths.socket }, 'ready');

  return {
    reload(next) {
      const { config, restart } = reloadable(inForce, next.proxy);
      core.configure(config);
      inForce = config;
      log.level = next.log.level;
      for (const setting of restart) log.warn({ setting }, 'needs a restart');
    },
    reloadFailed() {},
    async close() {
      clearInterval(timer);
      for (const server of [control, scrapes]) {
        server.close();
        server.closeAllConnections();
      }
      await core.close(inForce.drainMs);
      await state.close();
    },
  };
}

/** Health, metrics and the scheduler's picture of the moment. */
function createControl(core: Core, status: () => Status): Server {
  return createServer((request, response) => {
    response.shouldKeepAlive = false;
    const path = request.url?.split('?')[0];
    if (request.method !== 'GET' && request.method !== 'HEAD')
      sendJson(response, 405, { error: 'only GET is answered here' });
    else if (path === '/healthz' || path === '/readyz') send(response, 200, 'ok\n');
    else if (path?.startsWith('/v1/') && request.socket.remoteAddress !== undefined)
      sendJson(response, 403, { error: 'only on the control socket' });
    else if (path === '/v1/turns' || path === '/v1/sessions' || path === '/v1/monitor') {
      const sees = viewerOf(request.socket);
      if (sees === null) sendJson(response, 403, { error: 'only on the control socket' });
      else sendJson(response, 200, pictureOf(core, path, sees.uid));
    } else if (path === '/v1/status') sendJson(response, 200, status());
    else if (path === '/v1/doctor') {
      // Only for who asks: it would stay in memory.
      import('../kernel/doctor.ts')
        .then(({ hostChecks }) => hostChecks())
        .then(
          (checks) => sendJson(response, 200, { checks }),
          (error: unknown) => sendJson(response, 500, { error: messageOf(error) }),
        );
    } else if (path === '/metrics') {
      core.metrics().then(
        (text) => send(response, 200, text, 'text/plain; version=0.0.4; charset=utf-8'),
        () => response.destroy(),
      );
    } else sendJson(response, 404, { error: `no such path: ${path}; ${ALONE}` });
  });
}

/**
 * Whose sessions a caller may see: its own; root, operators and whoever runs this process all.
 * @returns null if it is not known who asks.
 */
function viewerOf(socket: Socket): { uid: number | undefined } | null {
  let user: { uid: number; gid: number } | undefined;
  try {
    user = userOf(native(), socket);
  } catch {
    // No addon on this machine.
  }
  if (user === undefined) return null;
  const all = user.uid === process.getuid?.() || isOperator(user.uid, user.gid);
  return { uid: all ? undefined : user.uid };
}

function pictureOf(core: Core, path: string, uid: number | undefined): object {
  if (path === '/v1/turns') return core.snapshot(uid === undefined ? undefined : isOf(uid));
  const proxy = core.monitor(uid);
  const sessions = sessionRecords([], proxy.sessions, nowMs());
  if (path === '/v1/sessions') return { sessions };
  const monitor: Monitor = { ...hostPicture(), ...NO_CALLS, sessions, proxy };
  return monitor;
}

/** What somebody is told who asks for tool calls. */
const ALONE = 'agentrmd runs the proxy alone (--proxy-only)';

function statusOf(
  socket: string,
  port: number,
  startedMs: number,
): Status & { readonly mode: 'proxy-only'; readonly proxy: { readonly port: number } } {
  const { pool, calls } = NO_CALLS;
  return {
    version: version(),
    pid: process.pid,
    mode: 'proxy-only',
    proxy: { port },
    uid: process.geteuid?.() ?? 0,
    uptimeMs: Math.round(nowMs() - startedMs),
    backend: { mode: 'none', hooks: [], reason: ALONE, degraded: [ALONE] },
    kernel: release(),
    cgroup: 'none',
    socket,
    pool,
    sessions: 0,
    calls,
    counters: {},
  };
}

/** There is no node agent: no pool, and no calls that are known. */
const NO_CALLS = {
  pool: { budgetBytes: 0, reserveBytes: 0, usedBytes: 0, roomBytes: 0 },
  calls: { waiting: 0, running: 0, throttled: 0, frozen: 0, lingering: 0 },
  liveCalls: [],
} as const;

function send(response: ServerResponse, status: number, body: string, type = 'text/plain'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  send(response, status, `${JSON.stringify(body)}\n`, 'application/json');
}

async function listenOnSocket(server: Server, path: string): Promise<void> {
  makeRoomForSocket(path);
  server.listen(path);
  await once(server, 'listening');
  // Whoever can run agents here may know how their turns stand.
  chmodSync(path, 0o666);
}
