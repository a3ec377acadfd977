// SPDX-License-Identifier: Apache-2.0
import type { Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from 'node:zlib';

/** What may wait for the decoder: it is faster than any network, unless what comes is not meant well. */
const MAX_BEHIND_BYTES = 1024 * 1024;

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
  zstd: createZstdDecompress,
};

/** Decodes a compressed response beside the bytes that go to the client, and gives up rather than hold them up. */
export class DecodedCopy {
  readonly #decoder: Transform | undefined;
  #failed: boolean;

  /**
   * @param encoding of `content-encoding`
   * @param onBytes gets what was decoded
   * @param onLost from here on nothing will be decoded any more
   */
  constructor(encoding: string, onBytes: (bytes: Buffer) => void, onLost: () => void) {
    this.#decoder = DECODERS[encoding.trim().toLowerCase()]?.();
    this.#failed = this.#decoder === undefined;
    this.#decoder?.on('data', (bytes: Buffer) => {
      if (!this.#failed) onBytes(bytes);
    });
    this.#decoder?.on('error', () => {
      if (!this.#failed) onLost();
      this.#failed = true;
    });
    if (this.#failed) onLost();
  }

  push(bytes: Buffer): void {
    if (this.#failed || this.#decoder === undefined) return;
    this.#decoder.write(bytes);
    if (this.#decoder.writableLength > MAX_BEHIND_BYTES) {
      this.#decoder.destroy(new Error('too far behind'));
    }
  }

  /** Calls back when all that was pushed is decoded, or lost. */
  end(callback: () => void): void {
    const decoder = this.#decoder;
    if (this.#failed || decoder === undefined || decoder.destroyed) {
      callback();
      return;
    }
    let called = false;
    const once = (): void => {
      if (!called) callback();
      called = true;
    };
    decoder.once('end', once).once('close', once);
    decoder.end();
  }

  close(): void {
    this.#failed = true;
    this.#decoder?.destroy();
  }
}
