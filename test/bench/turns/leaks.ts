// SPDX-License-Identifier: Apache-2.0
// Turns that end in every bad way there is, many at a time; then nothing may be left of them. On the wire, and far more
// of them on the scheduler with a simulated clock.
import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { generator } from '../../../daemon/sim/random.ts';
import { Chaos } from '../../lib/chaos.ts';
import { JSON_HEADERS, type Script, type Step } from '../../proxy/upstream.ts';
import type { Core } from './core.ts';
import { body, failure, frame, type Models, stream, words } from './model.ts';

/** Timers of the reaper short enough to be met often, and longer than whatever is healthy here. */
const SETTINGS = 'proxy: { reaper: { firstByte: 1s, betweenBytes: 1s, pingsOnly: 2s } }\n';
const AT_ONCE = 256;
/** So that one that pauses for a 429 does not keep all. */
const ACCOUNTS = 64;
const ROUNDS = 8;
/** Until nobody's use of the last minute counts any more, and connections that are idle are closed. */
const QUIET_MS = 65_000;
/** Turns end within this, retries of hung ones too. */
const SETTLE_MS = 30_000;
const TOKENS = 20;

/** What the core has of one thing before, and after. */
export interface Kept {
  readonly before: number;
  readonly after: number;
}

export interface WireResult {
  readonly requests: number;
  /** How they ended for their clients. */
  readonly ends: Readonly<Record<ClientEnd, number>>;
  /** Turns that the core ended as hung. */
  readonly reaped: number;
  readonly lanes: number;
  /** Queued, delayed or kept. */
  readonly waiting: number;
  /** Reserved of limits. */
  readonly reserved: number;
  /** The most that a bucket lies off its limit a minute later, of which nothing is used. */
  readonly drift: number;
  readonly bodyBytes: number;
  readonly descriptors: Kept;
  /** After each of the rounds. */
  readonly rssBytes: readonly number[];
}

export interface SimulatedResult {
  /** Turns that did not end well, whether they had a lane or still waited for one. */
  readonly ends: number;
  /** Of these: the client went; the upstream failed for good; the process that asked died; they waited too long. */
  readonly aborted: number;
  readonly failed: number;
  readonly orphaned: number;
  readonly expired: number;
  /** Hung turns that were ended; some were tried again. */
  readonly reaped: number;
  /** All that happened, the good things too. */
  readonly events: number;
}

const CLIENT_ENDS = ['answered', 'error', 'cut', 'left'] as const;
type ClientEnd = (typeof CLIENT_ENDS)[number];

/**
 * @param start makes a core with these settings
 * @param requests in all rounds together
 */
export async function wireLeaks(
  models: Models,
  start: (settings: string) => Promise<Core>,
  requests: number,
): Promise<WireResult> {
  const core = await start(SETTINGS);
  try {
    const random = generator(requests);
    for (let account = 0; account < ACCOUNTS; account += 1) models.serve(`leaks-${account}`, badly(random));
    const before = core.descriptors;
    const ends: Record<ClientEnd, number> = { answered: 0, error: 0, cut: 0, left: 0 };
    const rssBytes: number[] = [];
    for (let round = 1; round <= ROUNDS; round += 1) {
      let left = Math.ceil(requests / ROUNDS);
      const work = async (): Promise<void> => {
        while (left > 0) {
          left -= 1;
          ends[await client(core, `leaks-${Math.floor(random() * ACCOUNTS)}`, random)] += 1;
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      rssBytes.push(core.rssBytes());
      console.log(
        `leaks: ${round} of ${ROUNDS} rounds, ${Math.round((core.rssBytes() / 2 ** 20) * 10) / 10} MiB, ${core.descriptors} descriptors`,
      );
    }
    const untilMs = performance.now() + SETTLE_MS;
    let turns = await core.turns();
    while (turns.queued + turns.delayed + turns.running > 0 && performance.now() < untilMs) {
      await delay(100);
      turns = await core.turns();
    }
    const { upstreams } = turns;
    const lanes = upstreams.reduce((sum, upstream) => sum + upstream.lanes.held, 0);
    const reserved = upstreams
      .flatMap(({ buckets }) => buckets)
      .reduce((sum, bucket) => sum + bucket.reserved, 0);
    await delay(QUIET_MS);
    // Before anything is asked: each question is a connection.
    const after = core.descriptors;
    const quiet = await core.turns();
    const drifts = quiet.upstreams
      .flatMap(({ buckets }) => buckets)
      .map(({ limitPerMin, available }) => Math.abs((limitPerMin ?? 0) - (available ?? 0)));
    const result: WireResult = {
      requests: Object.values(ends).reduce((sum, count) => sum + count, 0),
      ends,
      reaped: await core.counted('agentrm_scheduler_reaped_total'),
      lanes,
      waiting: turns.queued + turns.delayed + turns.gated + turns.held,
      reserved,
      drift: Math.max(...drifts),
      bodyBytes: await core.counted('agentrm_proxy_body_bytes'),
      descriptors: { before, after },
      rssBytes,
    };
    const { waiting, drift, descriptors } = result;
    console.log(
      `leaks on the wire: ${result.requests} requests (${CLIENT_ENDS.map((end) => `${ends[end]} ${end}`).join(', ')}; ${result.reaped} reaped): ` +
        `${lanes} lanes, ${waiting} waiting, ${reserved} reserved, drift ${drift}, ${result.bodyBytes} bytes of bodies, ` +
        `${descriptors.before} descriptors before and ${descriptors.after} after`,
    );
    return result;
  } finally {
    await core.close();
  }
}

/** A model that seldom answers as it should, and tells limits that it does not count. */
function badly(random: () => number): Script {
  const limits = ['requests', 'input-tokens', 'output-tokens'].flatMap((name) => [
    `anthropic-ratelimit-${name}-limit`,
    '1000000',
  ]);
  const [opening, closing] = frame(10, TOKENS);
  const pause = () => delay(200 * random());
  const pieces = async function* (last: Step): AsyncGenerator<Step> {
    yield opening;
    for (let piece = 0; piece < 4; piece += 1) {
      await pause();
      yield words(TOKENS / 4);
      if (last !== closing && random() < 0.3) break;
    }
    yield last;
  };
  const retry = ['retry-after-ms', '20'];
  const fates: readonly (readonly [share: number, fate: Script])[] = [
    [30, () => stream(pieces(closing), limits)],
    [15, () => stream(pieces('cut'), limits)],
    [10, () => 'reset'],
    [8, () => failure(500, 'api_error', limits)],
    [6, () => failure(429, 'rate_limit_error', [...limits, ...retry])],
    [6, () => failure(529, 'overloaded_error', [...limits, ...retry])],
    [4, () => failure(400, 'invalid_request_error', limits)],
    [
      6,
      () => stream(['event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'], limits),
    ],
    // A length that is never reached.
    [4, () => ({ headers: [...JSON_HEADERS, ...limits, 'content-length', '1000'], steps: ['{', 'cut'] })],
    [5, () => stream(pieces('stall'), limits)],
    [3, () => 'silent'],
    [3, () => stream(['event: ping\ndata: {"type": "ping"}\n\n', 'stall'], limits)],
  ];
  const drawn = fates.flatMap(([share, fate]) => new Array<Script>(share).fill(fate));
  return (received, index) => {
    const fate = drawn[Math.floor(random() * drawn.length)];
    return fate?.(received, index) ?? 'reset';
  };
}

/** Sends a turn, and in half of the cases leaves at some moment: half of its body sent, while it waits, or reads. */
async function client(core: Core, key: string, random: () => number): Promise<ClientEnd> {
  const text = body(`turn ${random()} ${'word'.repeat(500)}`, { stream: random() < 0.9 });
  const headers = {
    'content-type': 'application/json',
    'x-api-key': key,
    'x-claude-code-session-id': `${key}-${Math.floor(random() * 3)}`,
    'x-stainless-timeout': '2',
    'content-length': Buffer.byteLength(text),
  };
  const sent = request(`${core.url}/v1/messages`, { method: 'POST', headers, agent: false });
  sent.on('error', () => {});
  const leaves = random() < 0.5;
  if (leaves && random() < 0.1) {
    sent.write(text.slice(0, text.length / 2));
    await delay(20 * random());
    sent.destroy();
    return 'left';
  }
  sent.end(text);
  const timer = leaves ? setTimeout(() => sent.destroy(), 500 * random() ** 2) : undefined;
  const end = await answerOf(sent);
  clearTimeout(timer);
  return leaves && end === 'cut' ? 'left' : end;
}

async function answerOf(sent: ClientRequest): Promise<ClientEnd> {
  try {
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    let isError = response.statusCode !== 200;
    for await (const chunk of response) isError ||= (chunk as Buffer).includes('event: error');
    return response.complete ? (isError ? 'error' : 'answered') : 'cut';
  } catch {
    return 'cut';
  }
}

/** Steps of one world. */
const STEPS = 10_000;
/** All that must always hold is looked at so often. */
const CHECK_EACH = 100;
/** Seldom: while an account's quota is used up its turns are refused at once, and nothing else happens. */
const QUOTA_SHARE = 0.002;

/** On a simulated clock, until so many turns did not end well. @throws AssertionError if anything is left of them */
export function simulatedLeaks(ends: number): SimulatedResult {
  const sum = { aborted: 0, failed: 0, orphaned: 0, expired: 0, reaped: 0 };
  const ended = () => sum.aborted + sum.failed + sum.orphaned + sum.expired;
  let events = 0;
  for (let seed = 1; ended() < ends; seed += 1) {
    const chaos = new Chaos(seed, QUOTA_SHARE);
    for (let step = 0; step < STEPS; step += 1) {
      chaos.step();
      events += 1;
      if (step % CHECK_EACH === 0) chaos.check();
    }
    chaos.finish();
    const { aborted, failed, reaped, refused } = chaos.lab.scheduler.counters();
    sum.aborted += aborted + refused.cancelled;
    sum.failed += failed;
    sum.orphaned += refused['owner-ended'];
    sum.expired += refused['wait-expired'];
    sum.reaped += reaped;
    if (seed % 20 === 0) console.log(`leaks, simulated: ${ended()} of ${ends}`);
  }
  const result = { ends: ended(), events, ...sum };
  console.log(
    `leaks, simulated: nothing left of ${result.ends} turns whose client went (${sum.aborted}), that failed ` +
      `(${sum.failed}), lost their process (${sum.orphaned}) or waited too long (${sum.expired}); ${sum.reaped} were reaped`,
  );
  return result;
}
