// SPDX-License-Identifier: Apache-2.0
import { chmodSync, closeSync, mkdirSync, rmSync } from 'node:fs';
import type { Server as HttpServer } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { AgentrmError, errnoOf, messageOf } from '../errors.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import type { CallManager } from '../toolcall/manager.ts';
import { WrapperConnection } from './wrapper-connection.ts';

/** Why a connection was closed on it; each has a counter. */
export type RefusalReason =
  | 'too-many'
  | 'no-credentials'
  | 'silent'
  | 'malformed'
  | 'too-long'
  | 'out-of-order';

export interface ControlServerOptions {
  readonly path: string;
  readonly native: Native;
  readonly manager: CallManager;
  /** Takes the connections that speak HTTP. */
  readonly http: HttpServer;
  /** Connections of one uid at a time. */
  readonly connectionsPerUid: number;
  /** A peer that has not sent one whole message after this long is dropped. */
  readonly silentMs: number;
  readonly onRefused: (reason: RefusalReason) => void;
}

const peers = new WeakMap<Socket, PeerCred>();

/** Who is at the other end of a control connection, as the kernel says. */
export function peerOf(socket: Socket): PeerCred | undefined {
  return peers.get(socket);
}

/** The control socket: wrappers (first byte `{`) and HTTP clients on one path. */
export class ControlServer {
  readonly #options: ControlServerOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #perUid = new Map<number, number>();

  constructor(options: ControlServerOptions) {
    this.#options = options;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /**
   * Listens on the path, or on the descriptor that systemd passed (sd_listen_fds(3)).
   * @throws AgentrmError AGENTRM_ERR_RUNNING if another daemon answers there, AGENTRM_ERR_SOCKET else.
   */
  async listen(env: NodeJS.ProcessEnv = process.env): Promise<void> {
    const { path } = this.#options;
    if (env.LISTEN_PID === String(process.pid) && Number(env.LISTEN_FDS) >= 1) {
      return this.#listenOn({ fd: 3 });
    }
    if (await answers(path)) {
      throw new AgentrmError('AGENTRM_ERR_RUNNING', `${path}: another daemon answers there`);
    }
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      rmSync(path, { force: true });
    } catch (error) {
      throw new AgentrmError('AGENTRM_ERR_SOCKET', `${path}: ${messageOf(error)}`, error);
    }
    await this.#listenOn({ path });
    // Everybody may ask; what they may see and do is decided by the uid that the kernel names.
    chmodSync(path, 0o666);
  }

  close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #listenOn(where: { fd: number } | { path: string }): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', (error) => {
        reject(new AgentrmError('AGENTRM_ERR_SOCKET', `${this.#options.path}: ${error.message}`, error));
      });
      // 1024: 500 calls at once arrive faster than they are accepted.
      this.#server.listen({ ...where, backlog: 1024 }, () => {
        this.#server.removeAllListeners('error');
        // EMFILE and the like: node goes on accepting when descriptors are free again.
        this.#server.on('error', () => {});
        resolve();
      });
    });
  }

  #accept(socket: Socket): void {
    const { native, onRefused, connectionsPerUid, silentMs } = this.#options;
    socket.on('error', () => socket.destroy());
    const fd = descriptorOf(socket);
    let peer: PeerCred;
    try {
      if (fd === undefined) throw new Error('no descriptor');
      peer = native.peerCred(fd);
    } catch {
      onRefused('no-credentials');
      socket.destroy();
      return;
    }
    const open = this.#perUid.get(peer.uid) ?? 0;
    this.#perUid.set(peer.uid, open + 1);
    this.#sockets.add(socket);
    peers.set(socket, peer);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      const left = (this.#perUid.get(peer.uid) ?? 1) - 1;
      if (left === 0) this.#perUid.delete(peer.uid);
      else this.#perUid.set(peer.uid, left);
      if (peer.pidfd >= 0) closeSync(peer.pidfd);
    });
    if (open >= connectionsPerUid) {
      onRefused('too-many');
      socket.destroy();
      return;
    }
    socket.setTimeout(silentMs, () => {
      onRefused('silent');
      socket.destroy();
    });
    socket.once('data', (chunk) => {
      if (chunk[0] !== 0x7b) {
        socket.setTimeout(0);
        socket.removeAllListeners('timeout');
        socket.pause();
        socket.unshift(chunk);
        this.#options.http.emit('connection', socket);
        socket.resume();
        return;
      }
      new WrapperConnection({
        socket,
        fd,
        peer,
        native,
        manager: this.#options.manager,
        onBadMessage: onRefused,
      });
      socket.emit('data', chunk);
    });
  }
}

/** node:net has no public way to the descriptor; `_handle.fd` has been there since Node 0.x. */
function descriptorOf(socket: Socket): number | undefined {
  const fd = (socket as unknown as { _handle?: { fd?: number } })._handle?.fd;
  return fd !== undefined && fd >= 0 ? fd : undefined;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error) => resolve(errnoOf(error) === 'EAGAIN'));
  });
}
