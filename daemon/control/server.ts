// SPDX-License-Identifier: Apache-2.0
import { chmodSync, closeSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import type { Server as HttpServer, IncomingMessage } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { AgentrmError, errnoOf, messageOf } from '../errors.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import type { CallManager } from '../toolcall/manager.ts';
import { descriptorOf } from './peer.ts';
import { WrapperConnection } from './wrapper-connection.ts';

/** Why a connection was closed on it; each has a counter. */
export type RefusalReason =
  | 'too-many'
  | 'no-credentials'
  | 'silent'
  | 'malformed'
  | 'too-long'
  | 'out-of-order';

export interface ConnectionLimits {
  /** Connections of one uid at a time. */
  readonly perUid: number;
  /** All connections. Root may open more, up to its own limit: somebody must be able to look. */
  readonly total: number;
  /** A peer that has not sent one whole message or request after this long is dropped. */
  readonly handshakeMs: number;
}

export interface ControlServerOptions {
  readonly path: string;
  readonly native: Native;
  readonly manager: CallManager;
  /** Takes the connections that speak HTTP. */
  readonly http: HttpServer;
  /** Asked for each connection: a new configuration counts for those to come. */
  readonly limits: () => ConnectionLimits;
  readonly log: Log;
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
  #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #perUid = new Map<number, number>();
  #closed = false;
  /** What ends the wait for the first message of a connection. */
  readonly #handshakes = new WeakMap<Socket, () => void>();

  constructor(options: ControlServerOptions) {
    this.#options = options;
    this.#server = this.#makeServer();
    options.http.on('request', ({ socket }: IncomingMessage) => this.#handshakes.get(socket)?.());
    options.http.on('clientError', (_error: Error, socket: Socket) => {
      options.onRefused('malformed');
      if (socket.writable) socket.write('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
      socket.destroy();
    });
  }

  /**
   * Listens on the path, or on the descriptor that systemd passed (sd_listen_fds(3)).
   * @throws AgentrmError AGENTRM_ERR_RUNNING if another daemon answers there, AGENTRM_ERR_SOCKET else.
   */
  async listen(env: NodeJS.ProcessEnv = process.env): Promise<void> {
    const { path } = this.#options;
    if (passedByInit(env)) {
      await this.#listenOn({ fd: 3 });
      // What init holds lost its path once, and a daemon that was killed has left there what it then listened on.
      if (await isDeadSocket(path)) await this.#listenAnew();
      return;
    }
    await assertAlone(path, env);
    makeRoomForSocket(path);
    await this.#listenAtPath();
  }

  /**
   * Listens anew if somebody has removed the socket's file: nobody would reach the daemon any more, and it would never
   * know. Connections stay. So do a socket that is another's, and a file that is none. What init passed is replaced
   * too: it holds a socket that no path leads to.
   * @returns whether it listens anew.
   * @throws AgentrmError AGENTRM_ERR_SOCKET if the path cannot be had; to be tried again.
   */
  async listenAgain(): Promise<boolean> {
    const { path } = this.#options;
    if (this.#closed || lstatSync(path, { throwIfNoEntry: false }) !== undefined) return false;
    await this.#listenAnew();
    return true;
  }

  close(): Promise<void> {
    this.#closed = true;
    for (const socket of this.#sockets) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #makeServer(): Server {
    return createServer((socket) => this.#accept(socket));
  }

  async #listenAnew(): Promise<void> {
    // First: libuv removes the file of a server that is closed, and that would be the new one.
    this.#server.close();
    this.#server = this.#makeServer();
    makeRoomForSocket(this.#options.path);
    await this.#listenAtPath();
  }

  async #listenAtPath(): Promise<void> {
    const { path } = this.#options;
    await this.#listenOn({ path });
    // Everybody may ask; what they may see and do is decided by the uid that the kernel names.
    chmodSync(path, 0o666);
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
    const { native, onRefused } = this.#options;
    const { perUid, total, handshakeMs } = this.#options.limits();
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
    const tooMany = open >= perUid || (this.#sockets.size >= total && peer.uid !== 0);
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
    if (tooMany) {
      onRefused('too-many');
      socket.destroy();
      return;
    }
    // Not the socket's own timeout, which each byte would start anew.
    const silent = setTimeout(() => {
      onRefused('silent');
      socket.destroy();
    }, handshakeMs);
    const spoke = () => clearTimeout(silent);
    this.#handshakes.set(socket, spoke);
    socket.once('close', spoke);
    socket.once('data', (chunk) => {
      if (chunk[0] !== 0x7b) {
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
        log: this.#options.log,
        onMessage: spoke,
        onBadMessage: onRefused,
      });
      socket.emit('data', chunk);
    });
  }
}

/**
 * Takes away the socket that a daemon left which no longer listens: {@link assertAlone} has looked.
 * @throws AgentrmError AGENTRM_ERR_SOCKET if something else is there, or the path cannot be had.
 */
export function makeRoomForSocket(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false) {
      throw new Error('is there, and is no socket');
    }
    rmSync(path, { force: true });
  } catch (error) {
    throw new AgentrmError('AGENTRM_ERR_SOCKET', `${path}: ${messageOf(error)}`, error);
  }
}

/**
 * Looks whether a daemon listens on the path.
 * @throws AgentrmError AGENTRM_ERR_RUNNING if one answers.
 */
export async function assertAlone(path: string, env: NodeJS.ProcessEnv = process.env): Promise<void> {
  if (!passedByInit(env) && (await answers(path))) {
    throw new AgentrmError('AGENTRM_ERR_RUNNING', `${path}: another daemon answers there`);
  }
}

function passedByInit(env: NodeJS.ProcessEnv): boolean {
  return env.LISTEN_PID === String(process.pid) && Number(env.LISTEN_FDS) >= 1;
}

async function answers(path: string): Promise<boolean> {
  const refusal = await knock(path);
  return refusal === undefined || refusal === 'EAGAIN';
}

/** A file that is no socket refuses too. */
async function isDeadSocket(path: string): Promise<boolean> {
  const isSocket = lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true;
  return isSocket && (await knock(path)) === 'ECONNREFUSED';
}

/** @returns undefined if somebody listens on the path, else the errno name. */
function knock(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once('error', (error) => resolve(errnoOf(error) ?? error.message));
  });
}
