// SPDX-License-Identifier: Apache-2.0
import { createHash, type Hash, hash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { JsonScan } from './json-scan.ts';

const NOTHING = Buffer.alloc(0);
/** Without a length the body grows from here. */
const FIRST_BYTES = 64 * 1024;
/**
 * Hashed in one go, and only if somebody asks, which is rare: that costs a third of an incremental hash and takes
 * 0.1 ms at most. What is larger is hashed as it comes.
 */
const SMALL_BYTES = 64 * 1024;

/** A request's body, kept whole because it waits in the queue and may be sent again. */
export interface RequestBody {
  readonly bytes: Buffer;
  readonly scan: JsonScan;
  /** SHA-256 of method, target and body, in base64url: the same request sent again has the same. */
  readonly hash: () => string;
}

export type BodyFailure =
  | 'too-large'
  /** All bodies together are as large as they may be. */
  | 'no-room'
  /** The client went, or stopped sending. */
  | 'gone';

/** What all bodies that are held may take together. */
export class BodyBudget {
  /** What is over it already stays. */
  maxBytes: number;
  #heldBytes = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  take(bytes: number): boolean {
    if (this.#heldBytes + bytes > this.maxBytes) return false;
    this.#heldBytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#heldBytes -= bytes;
  }
}

export interface ReadOptions {
  readonly maxBytes: number;
  readonly budget: BodyBudget;
  /** Members of the body that will be asked for. */
  readonly wanted: ReadonlySet<string>;
}

/**
 * Reads a body, and scans it as it comes, so that no length of it holds up anybody else. The end of the request may
 * not have been read then: `resume` it once it is answered.
 * @returns the body, whose size stays taken from the budget until the caller gives it back, or why there is none.
 */
export function readBody(request: IncomingMessage, options: ReadOptions): Promise<RequestBody | BodyFailure> {
  const { maxBytes } = options;
  const declared = Number(request.headers['content-length'] ?? Number.NaN);
  if (declared > maxBytes) return Promise.resolve('too-large');
  return new Promise((resolve) => {
    // Small bodies come along with the head, and Node has read them by then. Taken at once they need neither a stream
    // that flows nor a copy.
    process.nextTick(() => {
      if (request.readableLength !== declared) resolve(readPieces(request, declared, options));
      else resolve(takeWhole(request, request.read() ?? NOTHING, options));
    });
  });
}

function takeWhole(
  request: IncomingMessage,
  bytes: Buffer,
  { budget, wanted }: ReadOptions,
): RequestBody | BodyFailure {
  if (!budget.take(bytes.length)) return 'no-room';
  const scan = new JsonScan(wanted);
  scan.scan(bytes, bytes.length);
  return { bytes, scan, hash: hashOf(request, bytes) };
}

/** Reads what comes in more than one piece. */
function readPieces(
  request: IncomingMessage,
  declared: number,
  { maxBytes, budget, wanted }: ReadOptions,
): Promise<RequestBody | BodyFailure> {
  return new Promise((resolve) => {
    // Memory that is not written to is not used: a length that never comes costs nothing. Small ones share memory.
    let bytes = Buffer.allocUnsafe(Number.isNaN(declared) ? FIRST_BYTES : declared);
    let size = 0;
    const scan = new JsonScan(wanted);
    let incremental: Hash | undefined;
    const settle = (result: RequestBody | BodyFailure): void => {
      request.off('data', take).off('end', end).off('close', gone).off('error', gone);
      if (typeof result === 'string') budget.give(size);
      resolve(result);
    };
    const take = (chunk: Buffer): void => {
      const failure =
        size + chunk.length > maxBytes ? 'too-large' : budget.take(chunk.length) ? null : 'no-room';
      if (failure !== null) {
        settle(failure);
        return;
      }
      if (size + chunk.length > bytes.length) {
        const larger = Buffer.allocUnsafeSlow(
          Math.min(maxBytes, Math.max(bytes.length * 2, size + chunk.length)),
        );
        bytes.copy(larger, 0, 0, size);
        bytes = larger;
      }
      chunk.copy(bytes, size);
      size += chunk.length;
      if (incremental !== undefined) incremental.update(chunk);
      else if (size > SMALL_BYTES)
        incremental = createHash('sha256').update(lineOf(request)).update(bytes.subarray(0, size));
      scan.scan(bytes, size);
    };
    const end = (): void => {
      const body = bytes.subarray(0, size);
      settle({ bytes: body, scan, hash: hashOf(request, body, incremental?.digest('base64url')) });
    };
    const gone = (): void => settle('gone');
    if (request.closed) gone();
    else request.on('data', take).on('end', end).on('close', gone).on('error', gone);
  });
}

/** @param made if it is known already. @returns what makes it when it is first asked for. */
function hashOf(request: IncomingMessage, body: Buffer, made?: string): () => string {
  let known = made;
  return () => {
    known ??= hash('sha256', Buffer.concat([lineOf(request), body]), 'base64url');
    return known;
  };
}

function lineOf({ method, url }: IncomingMessage): Buffer {
  return Buffer.from(`${method} ${url}\n`);
}
