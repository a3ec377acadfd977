// SPDX-License-Identifier: Apache-2.0
import type { Socket } from 'node:net';
import { messageOf } from '../errors.ts';
import type { Native, PeerCred } from '../kernel/native.ts';
import type { Log } from '../log.ts';
import type { Answer } from '../toolcall/answer.ts';
import type { Call } from '../toolcall/call.ts';
import type { CallManager } from '../toolcall/manager.ts';
import { LineReader, parseMessage, type WrapperMessage } from './protocol.ts';

/** For the answer to one that has waited for as long as it may. */
const ADMITTED_MS = 1000;

/** What the wrapper can read: nine digits, eleven days. */
const MAX_ACK_MS = 999_999_999;

export interface WrapperConnectionOptions {
  readonly socket: Socket;
  /** The descriptor of the socket: node:net cannot pass descriptors over it. */
  readonly fd: number;
  readonly peer: PeerCred;
  readonly native: Native;
  readonly manager: CallManager;
  readonly log: Log;
  /** Called at the first whole message: the peer is a wrapper. */
  readonly onMessage: () => void;
  /** Called for each message that is not of the protocol, and for a line that is too long. */
  readonly onBadMessage: (reason: 'malformed' | 'too-long' | 'out-of-order') => void;
}

/** One wrapper on the socket: carries its messages to the call manager and the answers back. */
export class WrapperConnection {
  readonly #options: WrapperConnectionOptions;
  readonly #reader: LineReader;
  #call: Call | undefined;
  #state: 'new' | 'waiting' | 'answered' | 'ended' = 'new';
  #late = false;
  #withdraw: (() => void) | undefined;

  constructor(options: WrapperConnectionOptions) {
    this.#options = options;
    this.#reader = new LineReader(
      (line) => this.#onLine(line),
      () => this.#bad('too-long'),
    );
    options.socket.on('data', (chunk) => this.#reader.push(chunk));
    options.socket.on('close', () => this.#onClose());
  }

  #onLine(line: string): void {
    // What comes after the last word of either side is not read.
    if (this.#options.socket.destroyed || this.#options.socket.writableEnded) return;
    const message = parseMessage(line);
    if (message === undefined) {
      this.#bad('malformed');
      return;
    }
    this.#options.onMessage();
    try {
      if (!this.#take(message)) this.#bad('out-of-order');
    } catch (error) {
      // Of one wrapper only: without the connection it goes on unmanaged, or comes back.
      this.#options.log.error({ err: error, op: message.op }, 'message not served');
      this.#options.socket.destroy();
    }
  }

  /** @returns false if this is not the time for such a message. */
  #take(message: WrapperMessage): boolean {
    const call = this.#call;
    const isNew = this.#state === 'new';
    if (message.op === 'run' && isNew) this.#run(message);
    else if (message.op === 'adopt' && isNew) this.#adopt(message.call);
    else if (message.op === 'place' && isNew) this.#place(message.token);
    else if (message.op === 'feedback' && isNew) this.#feedback(message.session, message.command);
    else if (call === undefined || this.#state !== 'answered') return false;
    else if (message.op === 'end') this.#end(call, message);
    else if (message.op === 'late' && !this.#late) {
      this.#late = true;
      this.#options.manager.placeLate(call);
    } else return false;
    return true;
  }

  #run(message: WrapperMessage & { op: 'run' }): void {
    const { manager, peer } = this.#options;
    this.#state = 'waiting';
    this.#withdraw = manager.start(peer, message, (answer) => this.#answer(answer));
    if (this.#withdraw === undefined) return;
    const ackMs = Math.min(manager.admissionMs + ADMITTED_MS, MAX_ACK_MS);
    this.#options.socket.write(`ack ${Math.ceil(ackMs)}\n`);
  }

  /** @returns whether the wrapper is still there to take the answer. */
  #answer(answer: Answer): boolean {
    const { socket } = this.#options;
    if (socket.destroyed) return false;
    this.#state = 'answered';
    const notes = answer.notes.map((note) => `note ${note}\n`).join('');
    if (answer.kind === 'refuse') {
      socket.end(`${notes}refuse ${answer.code}\n`);
      return true;
    }
    if (answer.kind === 'none') {
      socket.end(`${notes}go - none -\n`);
      return true;
    }
    const flags = answer.call.hugePages ? 'thp' : '-';
    if (answer.kind === 'move') {
      socket.write(`${notes}go ${answer.call.id} move ${answer.token} ${flags}\n`);
    } else {
      const line = `${notes}go ${answer.call.id} clone ${flags}\n`;
      try {
        this.#options.native.sendFds(this.#options.fd, line, [answer.call.cgroup.fd]);
      } catch (error) {
        // EPIPE: it has gone. Otherwise it learns from the end of the connection that nothing will come.
        this.#options.log.error({ err: error, call: answer.call.id }, 'answer not sent');
        socket.destroy();
        return false;
      }
    }
    this.#call = answer.call;
    return true;
  }

  #adopt(id: string): void {
    const { manager, peer, socket } = this.#options;
    this.#call = manager.rejoin(peer, id);
    this.#state = 'answered';
    if (this.#call === undefined) socket.end('gone\n');
    else socket.write(`go ${id} kept -\n`);
  }

  #place(token: string): void {
    const { manager, peer, socket } = this.#options;
    this.#state = 'ended';
    manager.place(peer, token).then(
      () => socket.end('placed\n'),
      (error: unknown) => socket.end(`failed ${messageOf(error)}\n`),
    );
  }

  #feedback(session: string, command: string): void {
    const { manager, peer, socket } = this.#options;
    this.#state = 'ended';
    const line = manager.feedback(peer.uid, session, command);
    socket.end(line === undefined ? 'bye\n' : `note ${line}\nbye\n`);
  }

  #end(call: Call, message: WrapperMessage & { op: 'end' }): void {
    this.#state = 'ended';
    const { manager, socket } = this.#options;
    manager.end(call, message, (lines) => {
      socket.end(`${lines.map((line) => `note ${line}\n`).join('')}bye\n`);
    });
  }

  #bad(reason: 'malformed' | 'too-long' | 'out-of-order'): void {
    this.#options.onBadMessage(reason);
    this.#options.socket.destroy();
  }

  #onClose(): void {
    this.#withdraw?.();
    if (this.#call !== undefined && this.#state !== 'ended') this.#options.manager.wrapperGone(this.#call);
    this.#call = undefined;
  }
}
