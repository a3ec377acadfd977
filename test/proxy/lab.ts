// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { createLogger, type Log } from '../../daemon/log.ts';
import { ProxyServer, type ProxySettings } from '../../daemon/proxy/server.ts';
import type { TcpOwner } from '../../daemon/proxy/socket-owner.ts';
import type { UpstreamSettings } from '../../daemon/proxy/upstream.ts';
import type { Clock } from '../../daemon/scheduler/clock.ts';
import { realClock } from '../../daemon/scheduler/real-clock.ts';
import { Scheduler } from '../../daemon/scheduler/scheduler.ts';
import { defaultSettings, type SchedulerSettings } from '../../daemon/scheduler/settings.ts';
import type { ApiCase } from './answers.ts';

type Changes = { readonly [K in keyof SchedulerSettings]?: Partial<SchedulerSettings[K]> };

export interface LabOptions {
  readonly settings?: Partial<ProxySettings>;
  readonly scheduler?: Changes;
  readonly clock?: Clock;
  readonly log?: Log;
  readonly tcpOwner?: TcpOwner;
}

/** A proxy in this process, on a port of its own. */
export interface Lab {
  readonly url: string;
  readonly port: number;
  readonly proxy: ProxyServer;
  readonly scheduler: Scheduler;
}

const MiB = 2 ** 20;
/** Only what is worse than a warning: a test that fails says so itself. */
const quiet = createLogger({ level: 'fatal' });

/** Who closes it at the end: a test, or a suite's own `after`. */
export interface Closing {
  after(close: () => Promise<void>): void;
}

/** Starts a proxy before `upstream`, which serves both providers, until the end of the test. */
export async function startProxy(
  t: Closing,
  upstream: { url: string },
  options: LabOptions = {},
): Promise<Lab> {
  const clock = options.clock ?? realClock;
  const keys = Object.keys(defaultSettings) as (keyof SchedulerSettings)[];
  const settings = Object.fromEntries(
    keys.map((key) => [key, { ...defaultSettings[key], ...options.scheduler?.[key] }]),
  ) as unknown as SchedulerSettings;
  const scheduler = new Scheduler({ clock, random: () => 0.5, settings });
  const proxy = new ProxyServer({
    settings: {
      listen: { host: '127.0.0.1', port: 0 },
      upstreams: { anthropic: directly(upstream.url), openai: directly(upstream.url) },
      maxBodyBytes: 32 * MiB,
      maxBodiesBytes: 512 * MiB,
      maxConnections: 1024,
      earlyStream: null,
      background: [],
      ...options.settings,
    },
    scheduler,
    clock,
    key: 'key of the tests',
    tcpOwner: options.tcpOwner ?? null,
    log: options.log ?? quiet,
  });
  const port = await proxy.listen();
  t.after(() => proxy.close(0));
  return { url: `http://127.0.0.1:${port}`, port, proxy, scheduler };
}

/** An upstream without a proxy before it and with certificates that everybody trusts. */
export function directly(url: string): UpstreamSettings {
  return { url, via: null, ca: null };
}

/** A response with nothing of it interpreted. */
export interface RawResponse {
  readonly status: number;
  readonly statusText: string;
  readonly rawHeaders: readonly string[];
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
  readonly rawTrailers: readonly string[];
  /** Whether the response came to its end. */
  readonly complete: boolean;
}

export interface Ask {
  readonly method?: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>> | readonly string[];
  readonly body?: string | Buffer;
}

/** Sends a request and returns the response when its head is there. */
export async function open(
  url: string,
  { method = 'POST', path, headers = {}, body }: Ask,
): Promise<IncomingMessage> {
  const sent = request(`${url}${path}`, { method, headers: headers as Record<string, string>, agent: false });
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return response;
}

/** Sends a request and reads the response to its end, or to where it breaks off. */
export async function ask(url: string, what: Ask): Promise<RawResponse> {
  return readAll(await open(url, what));
}

export async function readAll(response: IncomingMessage): Promise<RawResponse> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of response) chunks.push(chunk as Buffer);
  } catch {
    // Cut: `complete` says so.
  }
  const { statusCode = 0, statusMessage = '', rawHeaders, headers, rawTrailers, complete } = response;
  return {
    status: statusCode,
    statusText: statusMessage,
    rawHeaders,
    headers,
    rawTrailers,
    body: Buffer.concat(chunks),
    complete,
  };
}

/** A turn of an API. */
export function turn({ path, headers, ask: body }: ApiCase, stream: boolean, text?: string): Ask {
  return { path, headers: { 'content-type': 'application/json', ...headers }, body: body(stream, text) };
}

/** The next piece of a response. @throws Error if it has ended */
export async function nextChunk(response: IncomingMessage): Promise<Buffer> {
  for (;;) {
    const chunk = response.read() as Buffer | null;
    if (chunk !== null) return chunk;
    if (response.readableEnded || response.destroyed) throw new Error('the response has ended');
    await Promise.race([once(response, 'readable'), once(response, 'end'), once(response, 'close')]);
  }
}

/** Lanes held and turns queued: nothing may be left of a turn that is over. */
export function held({ scheduler }: Lab): number {
  const { queued, running, delayed, upstreams } = scheduler.snapshot();
  return queued + running + delayed + upstreams.reduce((sum, { lanes }) => sum + lanes.held, 0);
}
