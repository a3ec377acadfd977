// SPDX-License-Identifier: Apache-2.0
// As much of HTTP/1.1 as a benchmark needs whose both ends are known: node:http at both ends of a proxy costs more
// than the proxy, on the same cores.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

const BLANK_LINE = '\r\n\r\n';
/** With the end of the chunk before it. */
const LAST_CHUNK = '\r\n0\r\n\r\n';

export interface MessageListener {
  /** The first bytes of the body have come. */
  readonly onBody?: () => void;
  /** All has come. @param body with the frame of its chunks, if it has any; its first 64 KiB at most */
  readonly onEnd: (body: Buffer, head: string) => void;
}

/** Reads messages that come one after the other: the next one is asked for when the last one has ended. */
export class MessageReader {
  readonly #listener: MessageListener;
  #head: string | undefined;
  #start: Buffer | undefined;
  #first: Buffer | undefined;
  /** The last bytes, as many as {@link LAST_CHUNK} has. */
  #tail = '';
  /** Of the body; Infinity: until its last chunk. */
  #leftBytes = 0;

  constructor(listener: MessageListener) {
    this.#listener = listener;
  }

  feed(bytes: Buffer): void {
    if (this.#head !== undefined) {
      this.#body(bytes);
      return;
    }
    const seen = this.#start === undefined ? bytes : Buffer.concat([this.#start, bytes]);
    const end = seen.indexOf(BLANK_LINE);
    if (end < 0) {
      this.#start = seen;
      return;
    }
    this.#start = undefined;
    this.#head = seen.toString('latin1', 0, end);
    this.#leftBytes = Number(/\r\ncontent-length: *(\d+)/i.exec(this.#head)?.[1] ?? Number.POSITIVE_INFINITY);
    this.#first = undefined;
    this.#tail = '';
    this.#body(seen.subarray(end + BLANK_LINE.length));
  }

  #body(bytes: Buffer): void {
    this.#leftBytes -= bytes.length;
    if (this.#first === undefined && bytes.length > 0) {
      this.#first = bytes;
      this.#listener.onBody?.();
    }
    if (this.#leftBytes > 0 && !this.#lastChunkCame(bytes)) return;
    const head = this.#head ?? '';
    this.#head = undefined;
    this.#listener.onEnd(this.#first ?? bytes, head);
  }

  #lastChunkCame(bytes: Buffer): boolean {
    if (this.#leftBytes !== Number.POSITIVE_INFINITY) return false;
    this.#tail = (this.#tail + bytes.toString('latin1', bytes.length - LAST_CHUNK.length)).slice(
      -LAST_CHUNK.length,
    );
    return this.#tail === LAST_CHUNK;
  }
}

/** Servers close connections that are idle for longer; Node's own after 5 s. */
const IDLE_MS = 4_000;

export interface Times {
  /** Until the first byte of the body. */
  readonly firstByteMs: number;
  readonly totalMs: number;
}

/** A client that keeps its connection, and sends one request after the other on it. */
export class Client {
  readonly #origin: URL;
  readonly #reader: MessageReader;
  #socket: Socket | undefined;
  #usedMs = 0;
  #startMs = 0;
  #firstByteMs = 0;
  #begun: (() => void) | undefined;
  #settle: ((times: Times) => void) | undefined;
  #fail: ((error: Error) => void) | undefined;

  constructor(origin: string) {
    this.#origin = new URL(origin);
    this.#reader = new MessageReader({
      onBody: () => {
        this.#firstByteMs = performance.now() - this.#startMs;
        this.#begun?.();
      },
      onEnd: (_body, head) => this.#ended(head),
    });
  }

  /** @throws Error unless it is answered with 200. */
  async ask(request: Buffer): Promise<Times> {
    const socket = await this.connected();
    return new Promise((resolve, reject) => {
      this.#settle = resolve;
      this.#fail = reject;
      this.#startMs = performance.now();
      socket.write(request);
    });
  }

  /** Asks for a stream that will not end, and waits for its first bytes. */
  begin(request: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#begun = resolve;
      this.ask(request).catch(reject);
    });
  }

  close(): void {
    this.#fail = undefined;
    this.#socket?.destroy();
    this.#socket = undefined;
  }

  /** The connection of before, unless its server may be closing it at this moment; not part of what is timed. */
  async connected(): Promise<Socket> {
    if (this.#socket !== undefined && performance.now() - this.#usedMs < IDLE_MS) return this.#socket;
    this.close();
    const socket = connect({ host: this.#origin.hostname, port: Number(this.#origin.port), noDelay: true });
    await once(socket, 'connect');
    socket.on('data', (bytes) => this.#reader.feed(bytes));
    socket.on('error', () => {});
    socket.on('close', () => {
      // Not one that was left.
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#fail?.(new Error('the connection was closed'));
    });
    this.#socket = socket;
    this.#usedMs = performance.now();
    return socket;
  }

  #ended(head: string): void {
    this.#usedMs = performance.now();
    const totalMs = this.#usedMs - this.#startMs;
    const { 1: status } = head.split(' ', 2);
    if (status === '200') this.#settle?.({ firstByteMs: this.#firstByteMs, totalMs });
    else this.#fail?.(new Error(`answered ${status}`));
  }
}

/** A request of the benchmark, as it goes over the wire. */
export function requestOf(path: string, headers: Readonly<Record<string, string>>, body: string): Buffer {
  const all = {
    host: 'bench',
    'content-type': 'application/json',
    ...headers,
    'content-length': body.length,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
  return Buffer.from(`POST ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n${body}`);
}
