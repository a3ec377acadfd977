// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export type Message = Record<string, unknown>;
export type Reply = (message: Message, socket: Socket) => void;

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

  private constructor(path: string, reply: Reply) {
    this.path = path;
    this.#reply = reply;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** @param reply Called for each message; by default the command may start at once and the end is taken note of. */
  static async listen(path: string, reply: Reply = obliging): Promise<Peer> {
    const peer = new Peer(path, reply);
    peer.#server.listen(path);
    await once(peer.#server, 'listening');
    return peer;
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

  /** As a daemon that dies: no new connections, the present ones cut. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }
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
