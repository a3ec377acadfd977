// SPDX-License-Identifier: Apache-2.0
import type { Socket } from 'node:net';

/**
 * The longest message: a full table of budgets and places is about 2 MB. What a peer sends beyond is not
 * kept, so that neither process can fill the other's memory.
 */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
/** What may wait for a peer that does not read. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

const NEWLINE = 0x0a;

/** What agentrmd and the core say to each other. The rest of a message is JSON, or opaque to who keeps it. */
export const MESSAGES = [
  'start', // to the core: how to run (CoreStart)
  'pressure', // to the core: the host (HostPressure)
  'calls', // to the core: sessions and what is known of their tool calls (CallsMessage)
  'configure', // to the core: the number of the question, and another configuration (CoreSettings)
  'frozen', // to the core: cgroups that are frozen, all of them (FrozenMessage)
  'ask', // to the core: the number of the question, what is asked, and for whom
  'stop', // to the core: how long it may drain, in ms
  'listening', // from the core: the port
  'failed', // from the core: why it does not listen
  'state', // from the core: what should outlive it (SavedState)
  'class', // from the core: a session's class (ClassMessage)
  'event', // from the core: what users may want to know (CoreEvent)
  'answer', // from the core: the number of the question, and the text
] as const;
export type MessageKind = (typeof MESSAGES)[number];

/**
 * Messages of one line each over a stream socket: `KIND TEXT`. Not Node's own channel, which reads and parses
 * whatever comes: the daemon's loop decides about frozen calls, and the core reads what strangers send.
 */
export class Channel {
  readonly #socket: Socket;
  readonly #onMessage: (kind: MessageKind, text: string) => void;
  #pieces: Buffer[] = [];
  #heldBytes = 0;
  #dropped = 0;

  /** @param onEnd called once, when the peer has gone or said something that is no message */
  constructor(socket: Socket, onMessage: (kind: MessageKind, text: string) => void, onEnd: () => void) {
    this.#socket = socket;
    this.#onMessage = onMessage;
    socket.on('data', (chunk: Buffer) => this.#take(chunk));
    socket.on('error', () => {});
    socket.once('close', onEnd);
  }

  /** Messages that were not sent, because they were too long or the peer does not read. */
  get dropped(): number {
    return this.#dropped;
  }

  /** @returns whether the message is on its way. @param text without a line end, as JSON.stringify makes it */
  send(kind: MessageKind, text: string): boolean {
    const line = `${kind} ${text}\n`;
    const fits =
      line.length <= MAX_MESSAGE_BYTES && this.#socket.writableLength + line.length <= MAX_WAITING_BYTES;
    if (!fits || !this.#socket.writable) {
      this.#dropped += 1;
      return false;
    }
    this.#socket.write(line);
    return true;
  }

  /** Ends it after what was sent. */
  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      this.#pieces.push(chunk.subarray(from, end));
      const line = Buffer.concat(this.#pieces).toString();
      this.#pieces = [];
      this.#heldBytes = 0;
      from = end + 1;
      if (!this.#message(line)) return;
    }
    if (from === chunk.length) return;
    this.#heldBytes += chunk.length - from;
    if (this.#heldBytes > MAX_MESSAGE_BYTES) {
      this.#socket.destroy();
      return;
    }
    this.#pieces.push(chunk.subarray(from));
  }

  #message(line: string): boolean {
    const space = line.indexOf(' ');
    const kind = MESSAGES.find((known) => known === line.slice(0, space));
    if (kind === undefined) {
      this.#socket.destroy();
      return false;
    }
    this.#onMessage(kind, line.slice(space + 1));
    return true;
  }
}
