// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { closeSync, constants, openSync, rmSync, writeSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';

export type Message = Record<string, unknown>;
export type Reply = (message: Message, socket: Socket) => void;

/** As often as the daemon beats: a wrapper gives one that is alive longer than the 50 ms a busy test may miss. */
const BEAT_MS = 250;

/** The other end of the wrapper's socket, saying whatever a test wants said. */
export class Peer {
  readonly path: string;
  /** Everything that any wrapper has sent, in order. */
  readonly messages: Message[] = [];
  /** The same before it was decoded. */
  readonly lines: string[] = [];
  readonly sockets = new Set<Socket>();
  readonly #server: Server;
  readonly #reply: Reply;
  readonly #heartbeat: string;
  #beats: NodeJS.Timeout | undefined;

  private constructor(path: string, reply: Reply) {
    this.path = path;
    this.#reply = reply;
    this.#heartbeat = join(dirname(path), 'heartbeat');
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** @param reply Called for each message; by default the command may start at once and the end is taken note of. */
  static async listen(path: string, reply: Reply = obliging): Promise<Peer> {
    const peer = new Peer(path, reply);
    peer.#server.listen(path);
    await once(peer.#server, 'listening');
    writeBeat(peer.#heartbeat);
    peer.#beats = setInterval(() => writeBeat(peer.#heartbeat), BEAT_MS);
    return peer;
  }

  /** Hangs, for all that a wrapper can see: it listens, but its heart stands still. */
  stopBeating(): this {
    clearInterval(this.#beats);
    rmSync(this.#heartbeat, { force: true });
    return this;
  }

  #accept(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.sockets.delete(socket));
    const reader = createInterface({ input: socket });
    reader.on('error', () => {});
    reader.on('line', (line) => {
      const message = JSON.parse(line) as Message;
      this.lines.push(line);
      this.messages.push(message);
      this.#reply(message, socket);
      this.#server.emit('message');
    });
  }

  /** The first message with this `op`, come or coming. */
  async message(op: string): Promise<Message> {
    for (;;) {
      const found = this.messages.find((message) => message.op === op);
      if (found !== undefined) return found;
      await once(this.#server, 'message');
    }
  }

  /** As a daemon that dies: no new connections, the present ones cut; what it beat last stays. */
  async die(): Promise<void> {
    clearInterval(this.#beats);
    if (!this.#server.listening) return;
    this.#server.close();
    for (const socket of this.sockets) socket.destroy();
    await once(this.#server, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stopBeating();
    await this.die();
  }
}

/** Writes a heartbeat as the daemon keeps it: CLOCK_MONOTONIC in nanoseconds, `agoMs` earlier than now. */
export function writeBeat(path: string, agoMs = 0): void {
  const beat = Buffer.alloc(8);
  beat.writeBigUInt64LE(process.hrtime.bigint() - BigInt(agoMs) * 1_000_000n);
  // In one write over the old one, as a reader of the daemon's mapping sees it: a file that is emptied first could
  // be read while it is empty.
  const file = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o644);
  writeSync(file, beat);
  closeSync(file);
}

/** Lets the command start without a cgroup: what a daemon that sent no descriptor would get, too. */
export function obliging(message: Message, socket: Socket): void {
  if (message.op === 'run') socket.write('go c0123456789ab clone -\n');
  if (message.op === 'end') socket.end('bye\n');
}

/** Answers `run` with the given bytes and `end` with `bye`. */
export function answering(bytes: string | Buffer): Reply {
  return (message, socket) => {
    if (message.op === 'run') socket.write(bytes);
    if (message.op === 'end') socket.end('bye\n');
  };
}
