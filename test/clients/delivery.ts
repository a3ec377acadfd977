// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { createBrotliCompress, createGzip, createZstdCompress } from 'node:zlib';
import { encodeEvent, PING, type StreamEvent } from './anthropic-events.ts';

/** How an answer travels. Faults can be combined; the first that ends the answer wins. */
export interface Delivery {
  /** Response headers added to the usual ones. */
  headers?: Record<string, string>;
  /** Keep even the headers back until the client gives up. */
  holdHeaders?: boolean;
  /** Milliseconds between two events. */
  dripMs?: number;
  /** Send this many events, then nothing more until the client gives up. */
  stallAfterEvents?: number;
  /** While stalled, milliseconds between two pings. */
  pingEveryMs?: number;
  /** Break the connection after this many events, in the middle of the next one. */
  cutAfterEvents?: number;
  /** Compress the body, flushed after every event as a streaming server does it. */
  encoding?: 'gzip' | 'br' | 'zstd';
}

const COMPRESSORS = { gzip: createGzip, br: createBrotliCompress, zstd: createZstdCompress };

async function clientGone(response: ServerResponse): Promise<void> {
  if (!response.destroyed) await once(response, 'close');
}

interface Body {
  write(text: string): Promise<void>;
  end(): void;
}

function openBody(response: ServerResponse, encoding: Delivery['encoding']): Body {
  if (encoding === undefined) {
    return {
      // A cut must come after what was written before it, so each write waits until the kernel has it.
      write: (text) => new Promise((resolve) => response.write(text, () => resolve())),
      end: () => response.end(),
    };
  }
  const compressor = COMPRESSORS[encoding]();
  compressor.pipe(response);
  return {
    write: (text) =>
      new Promise((resolve) => {
        compressor.write(text);
        compressor.flush(resolve);
      }),
    end: () => compressor.end(),
  };
}

async function stall(response: ServerResponse, body: Body, pingEveryMs: number | undefined): Promise<void> {
  if (pingEveryMs === undefined) return clientGone(response);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  while (!response.destroyed) {
    await body.write(encodeEvent(PING));
    await sleep(pingEveryMs, undefined, { signal: gone.signal }).catch(() => undefined);
  }
}

/** Send a streamed answer in the given manner; resolves when nothing more will be sent. */
export async function deliverEvents(
  response: ServerResponse,
  events: StreamEvent[],
  delivery: Delivery,
): Promise<void> {
  if (delivery.holdHeaders) return clientGone(response);
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    ...(delivery.encoding === undefined ? {} : { 'content-encoding': delivery.encoding }),
    ...delivery.headers,
  });
  const body = openBody(response, delivery.encoding);
  for (const [sent, event] of events.entries()) {
    if (sent === delivery.stallAfterEvents) return stall(response, body, delivery.pingEveryMs);
    const bytes = encodeEvent(event);
    if (sent === delivery.cutAfterEvents) {
      await body.write(bytes.slice(0, bytes.length / 2));
      response.destroy();
      return;
    }
    if (delivery.dripMs !== undefined && sent > 0) await sleep(delivery.dripMs);
    if (response.destroyed) return;
    await body.write(bytes);
  }
  body.end();
}
