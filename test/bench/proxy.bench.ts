// SPDX-License-Identifier: Apache-2.0
// What the proxy adds to a turn, beside the Portkey gateway, on the same upstream in the same run: servers are asked in
// turn, so that what else the machine does meets all. Latencies are those of one client that waits for each
// answer; with 64 clients the model takes 200 ms, as otherwise it is the machine that would be measured. They begin
// one after the other within that time, as agents do not march in step, and once more all in the same moment.
import { setTimeout as delay } from 'node:timers/promises';
import { Client, requestOf, type Times } from './proxy/http.ts';
import { type Server, startOurs, startPeer, startUpstream } from './proxy/servers.ts';
import { count, record } from './record.ts';
import { type Interval, interval, median, quantile } from './stats.ts';

/**
 * Long after the warm-up there is still something to compile: over the first 400 the proxy added 0.31 to 0.40 of what the
 * peer did, over 1,000 0.28 to 0.32.
 */
const requests = count('REQUESTS', 1000);
const clients = count('CLIENTS', 64);
const streams = count('STREAMS', 500);
/** Before anything is timed: Node compiles what it has seen often enough, and some of it late. */
const warmUp = count('WARM_UP', 2000);
const THINK_MS = 200;
/** 100,000 tokens of four bytes. */
const LARGE_BYTES = 400_000;
/** For requests a second: as in the published comparisons of gateways. */
const PARALLEL = 16;
const ROUNDS = 4;
/** CPU time is kept in hundredths of a second: so many requests take tens of them. */
const THROUGHPUT_REQUESTS = 5 * requests;

/** In milliseconds over a direct connection. */
export interface Added {
  readonly p50: number;
  readonly p50Interval: Interval;
  readonly p99: number;
}

export interface ServerResults {
  readonly name: string;
  /** One client, a small request. */
  readonly small: Added | null;
  /** 64 clients, each in its own time. */
  readonly parallel: Added | null;
  /** 64 clients that ask in the same moment. */
  readonly inStep: Added | null;
  /** Until the first byte of a stream's body. */
  readonly firstByte: Added | null;
  /** 100,000 tokens. */
  readonly large: Added | null;
  readonly requestsPerSecond: number;
  /** CPU time of its process for a small request: what else runs on the machine does not change it much. */
  readonly cpuMsPerRequest: number;
  /** With so many streams open; null: not the process that was measured. */
  readonly rssBytes: number | null;
}

export interface ProxyResults {
  readonly servers: readonly ServerResults[];
}

/** Sends one request and reads its answer. */
async function turn(client: Client, server: Server, body: string): Promise<Times> {
  try {
    return await client.ask(requestTo(server, body));
  } catch (error) {
    throw new Error(`${server.name}: ${error instanceof Error ? error.message : error}`);
  }
}

const requestTo = (server: Server, body: string) =>
  requestOf('/v1/chat/completions', { authorization: 'Bearer bench', ...server.headers }, body);

const ask = (model: string, stream: boolean, content = 'hello') =>
  JSON.stringify({ model, stream, messages: [{ role: 'user', content }] });

const upstream = await startUpstream();
const ours = await startOurs(upstream);
const peer = await startPeer(upstream);
const servers = [upstream, ours, ...(peer === null ? [] : [peer])];
const clientsOf = new Map(
  servers.map((server) => [
    server,
    Array.from({ length: Math.max(clients, PARALLEL) }, () => new Client(server.origin)),
  ]),
);
const clientOf = (server: Server) => clientsOf.get(server)?.[0] as Client;

/** Times of every server, asked in turn. */
async function inTurn(body: string, rounds: number, asked = servers): Promise<Map<Server, Times[]>> {
  const times = new Map<Server, Times[]>(asked.map((server) => [server, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const server of asked) times.get(server)?.push(await turn(clientOf(server), server, body));
  }
  return times;
}

/** Times of every server with many clients at once; so many requests for each server. */
async function atOnce(
  body: string,
  parallel: number,
  each: number,
  spreadMs = 0,
): Promise<Map<Server, Times[]>> {
  const times = new Map<Server, Times[]>(servers.map((server) => [server, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const server of servers)
      times.get(server)?.push(...(await burst(server, body, parallel, each / ROUNDS, spreadMs)));
  }
  return times;
}

/** @param spreadMs within which the clients begin, one after the other */
async function burst(
  server: Server,
  body: string,
  parallel: number,
  total: number,
  spreadMs = 0,
): Promise<Times[]> {
  const times: Times[] = [];
  let left = Math.ceil(total);
  const asking = (clientsOf.get(server) ?? []).slice(0, parallel);
  await Promise.all(asking.map((client) => client.connected()));
  const work = async (client: Client, at: number): Promise<void> => {
    if (spreadMs > 0) await delay((at * spreadMs) / parallel);
    while (left > 0) {
      left -= 1;
      times.push(await turn(client, server, body));
    }
  };
  await Promise.all(asking.map(work));
  return times;
}

/** How much longer than a direct connection. */
function added(times: Map<Server, Times[]>, server: Server, of: keyof Times): Added | null {
  if (server === upstream) return null;
  const values = (one: Server) => (times.get(one) ?? []).map((each) => each[of]);
  const direct = values(upstream);
  const own = values(server);
  if (own.length === 0) return null;
  const pairs = own.map((value, at) => value - (direct[at] ?? Number.NaN));
  return {
    p50: median(own) - median(direct),
    p50Interval: interval(pairs, median),
    p99: quantile(own, 0.99) - quantile(direct, 0.99),
  };
}

type Rate = Pick<ServerResults, 'requestsPerSecond' | 'cpuMsPerRequest'>;

async function throughput(): Promise<Map<Server, Rate>> {
  const taken = new Map(servers.map((server) => [server, { rates: [] as number[], cpuMs: 0 }]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [server, of] of taken) {
      const cpuMs = server.cpuMs();
      const startMs = performance.now();
      await burst(server, ask('now', false), PARALLEL, THROUGHPUT_REQUESTS);
      of.rates.push((1000 * THROUGHPUT_REQUESTS) / (performance.now() - startMs));
      of.cpuMs += server.cpuMs() - cpuMs;
    }
  }
  const rateOf = ({ rates, cpuMs }: { rates: number[]; cpuMs: number }): Rate => ({
    requestsPerSecond: median(rates),
    cpuMsPerRequest: cpuMs / (ROUNDS * THROUGHPUT_REQUESTS),
  });
  return new Map(Array.from(taken, ([server, of]) => [server, rateOf(of)]));
}

/** Portkey 1.15.2 answers streams with 500 on Node 24: `TypeError: immutable` in its own handler of headers. */
async function canStream(server: Server): Promise<boolean> {
  try {
    await turn(clientOf(server), server, ask('now', true));
    return true;
  } catch (error) {
    console.error(`no streams: ${error instanceof Error ? error.message : error}`);
    return false;
  }
}

/** Resident memory with many streams open, each after its first event. */
async function rssWithStreams(server: Server): Promise<number | null> {
  if (server === upstream) return null;
  const readers = Array.from({ length: streams }, () => new Client(server.origin));
  try {
    const request = requestTo(server, ask('hold', true));
    await Promise.all(readers.map((client) => client.begin(request)));
    return server.rssBytes();
  } finally {
    for (const client of readers) client.close();
  }
}

try {
  await atOnce(ask('now', false), PARALLEL, warmUp);
  const streaming: Server[] = [];
  for (const server of servers) if (await canStream(server)) streaming.push(server);
  await inTurn(ask('now', true), Math.ceil(warmUp / 10), streaming);
  const small = await inTurn(ask('now', false), requests);
  const stream = await inTurn(ask('now', true), requests, streaming);
  const large = await inTurn(ask('now', false, 'word '.repeat(LARGE_BYTES / 5)), Math.ceil(requests / 4));
  const later = ask(`later-${THINK_MS}`, false);
  const each = Math.max(requests, clients * ROUNDS) * 4;
  // Connections to the upstream are made once.
  await atOnce(later, clients, clients * ROUNDS);
  const parallel = await atOnce(later, clients, each, THINK_MS);
  const inStep = await atOnce(later, clients, each);
  const rates = await throughput();
  const results: ServerResults[] = [];
  for (const server of servers) {
    results.push({
      name: server.name,
      small: added(small, server, 'totalMs'),
      parallel: added(parallel, server, 'totalMs'),
      inStep: added(inStep, server, 'totalMs'),
      firstByte: added(stream, server, 'firstByteMs'),
      large: added(large, server, 'totalMs'),
      ...(rates.get(server) as Rate),
      rssBytes: null,
    });
  }
  // Last, so that the memory of a storm is not that of the turns before.
  for (const [at, server] of servers.entries()) {
    if (!streaming.includes(server)) continue;
    results[at] = { ...(results[at] as ServerResults), rssBytes: await rssWithStreams(server) };
  }
  const found: ProxyResults = { servers: results };
  record('proxy', { requests, clients, streams, warmUp }, found);
  for (const one of results) {
    const ms = (of: Added | null, which: 'p50' | 'p99') => (of === null ? '-' : of[which].toFixed(2));
    console.log(
      `${one.name.padEnd(8)} c=1 +${ms(one.small, 'p50')} ms, c=${clients} p99 +${ms(one.parallel, 'p99')} ms, in step +${ms(one.inStep, 'p99')} ms, ` +
        `first byte +${ms(one.firstByte, 'p50')} ms, 100 K tokens +${ms(one.large, 'p50')} ms, ` +
        `${one.requestsPerSecond.toFixed(0)}/s, CPU ${one.cpuMsPerRequest.toFixed(3)} ms, RSS ${one.rssBytes === null ? '-' : (one.rssBytes / 2 ** 20).toFixed(0)} MiB`,
    );
  }
} finally {
  for (const client of [...clientsOf.values()].flat()) client.close();
  for (const server of servers) await server.close();
}
