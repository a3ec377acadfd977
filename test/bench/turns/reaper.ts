// SPDX-License-Identifier: Apache-2.0
// What looks like a hang and is none, and what is one, with the timers as they are shipped: all at the same time, in
// real minutes. What is seen is the wire on both sides: whether the client has its answer, and when the model's
// connection was closed.
import { setTimeout as delay } from 'node:timers/promises';
import { ask, open, type readAll } from '../../proxy/lab.ts';
import { type Answer, JSON_HEADERS, type Received, type Script, type Step } from '../../proxy/upstream.ts';
import { Agent } from './agent.ts';
import type { Core } from './core.ts';
import { body, frame, type Models, stream, words } from './model.ts';

const SECOND_MS = 1_000;
/** Storms begin in the same moment, and take what the machine has: a timer's precision is another matter. */
const START_MS = 5 * SECOND_MS;
/** As Anthropic sends them. */
const PING_MS = 10 * SECOND_MS;
const PING = 'event: ping\ndata: {"type": "ping"}\n\n';
const TOKENS = 50;
/** Far more than the buffers of sockets hold. */
const UNREAD_PIECES = 4_000;
const PIECE_TOKENS = 1_024;
/** Lanes at the start, all of which are taken. */
const LANES = 32;

/** The timers as they are shipped. */
const FIRST_BYTE_MS = 120 * SECOND_MS;
const BETWEEN_BYTES_MS = 120 * SECOND_MS;
const PINGS_ONLY_MS = 280 * SECOND_MS;
/** What the client itself says (`x-stainless-timeout`). */
const CLIENT_S = 60;

export interface HealthyResult {
  readonly name: string;
  readonly turns: number;
  /** Turns whose client did not have its whole answer, or whose connection to the model was closed before its end. */
  readonly reaped: number;
}

export interface HungResult {
  readonly name: string;
  readonly turns: number;
  /** Turns that were ended at all. */
  readonly ended: number;
  /** From the timer to the end of the connection to the model; the largest in either direction counts. */
  readonly lateMs: { readonly least: number; readonly most: number };
  /** Turns that a second attempt served, where one may follow. */
  readonly recovered: number;
}

export interface ReaperResults {
  readonly healthy: readonly HealthyResult[];
  readonly hung: readonly HungResult[];
  /** By the core's own counters, of whatever else it served in these minutes too: turns, and runs. */
  readonly reaped: number;
  readonly abandoned: number;
}

export async function reaping(models: Models, core: Core, copies: number): Promise<ReaperResults> {
  await delay(START_MS);
  const context = { models, core, copies };
  const [healthy, hung] = await Promise.all([
    Promise.all([
      thinking(context),
      late(context),
      slowTokens(context),
      queued(context),
      slowReader(context),
      longTool(context),
      whole(context),
    ]),
    Promise.all(STALLS.map((stall) => stalled(context, stall))),
  ]);
  const reaped = await core.counted('agentrm_scheduler_reaped_total');
  return { healthy, hung, reaped, abandoned: await core.counted('agentrm_scheduler_abandoned_total') };
}

interface Context {
  readonly models: Models;
  readonly core: Core;
  readonly copies: number;
}

// What is no hang.

function thinking(context: Context): Promise<HealthyResult> {
  return healthy(context, 'pings for 120 s, then the answer', async function* () {
    const [opening, closing] = frame(10, TOKENS);
    yield opening;
    for (let ms = 0; ms < 120 * SECOND_MS; ms += PING_MS) {
      await delay(PING_MS);
      yield PING;
    }
    yield words(TOKENS) + closing;
  });
}

function late(context: Context): Promise<HealthyResult> {
  return healthy(context, 'nothing after the head for 110 s, then the answer', async function* () {
    await delay(110 * SECOND_MS);
    yield frame(10, TOKENS).join(words(TOKENS));
  });
}

function slowTokens(context: Context): Promise<HealthyResult> {
  return healthy(context, '1 token in 5 s, for 250 s', () => oneInFive(250));
}

async function* oneInFive(seconds: number): AsyncGenerator<Step> {
  const [opening, closing] = frame(10, seconds / 5);
  yield opening;
  for (let passed = 0; passed < seconds; passed += 5) {
    await delay(5 * SECOND_MS);
    yield words(1);
  }
  yield closing;
}

/** All lanes are held for 250 s, but for one that becomes free before the longest wait. */
async function queued({ models, core }: Context): Promise<HealthyResult> {
  const name = '230 and 250 s in the queue, behind slow ones';
  const key = `reaper-${name}`;
  const { promise: full, resolve } = Promise.withResolvers<void>();
  const watch = new Watch();
  models.serve(key, (request) => {
    watch.request(request);
    if (watch.requests === LANES) resolve();
    const isHolder = watch.requests <= LANES;
    return stream(isHolder ? oneInFive(watch.requests === 1 ? 230 : 250) : oneInFive(5));
  });
  const holders = Array.from(
    { length: LANES },
    (_none, at) => new Agent({ url: core.url, key, session: `${key}-${at}` }),
  );
  const turns = holders.map((agent, at) => agent.turn(`holder ${at}`));
  await full;
  const waiting = [0, 1].map((at) =>
    new Agent({ url: core.url, key, session: `${key}-waits-${at}` }).turn(`waits ${at}`),
  );
  const results = await Promise.all([...turns, ...waiting]);
  const failed = results.filter(({ error }) => error !== null).length;
  const reaped = Math.max(failed, await watch.cut());
  return told({ name, turns: results.length, reaped });
}

/** A client that does not read for 150 s what the model has long written. */
async function slowReader({ models, core, copies }: Context): Promise<HealthyResult> {
  const name = 'a client that does not read for 150 s';
  const key = `reaper-${name}`;
  const watch = new Watch();
  const [opening, closing] = frame(10, UNREAD_PIECES * PIECE_TOKENS);
  const piece = words(PIECE_TOKENS);
  models.serve(key, (request) => {
    watch.request(request);
    return stream([opening, ...new Array<string>(UNREAD_PIECES).fill(piece), closing]);
  });
  const bytes = opening.length + closing.length + UNREAD_PIECES * piece.length;
  const read = await Promise.all(
    Array.from({ length: copies }, async (_none, at) => {
      const response = await open(core.url, asked(key, at));
      await delay(150 * SECOND_MS);
      let readBytes = 0;
      for await (const chunk of response) readBytes += (chunk as Buffer).length;
      return readBytes === bytes && response.complete;
    }),
  );
  const failed = read.filter((complete) => !complete).length;
  return told({ name, turns: copies, reaped: Math.max(failed, await watch.cut()) });
}

/** Between two turns of a run its tool works for 200 s. */
async function longTool({ models, core, copies }: Context): Promise<HealthyResult> {
  const name = '200 s of a tool call between two turns';
  const key = `reaper-${name}`;
  const watch = new Watch();
  models.serve(key, (request) => {
    watch.request(request);
    const [opening, closing] = frame(10, TOKENS);
    const stop = request.body.includes('tool_result') ? closing : closing.replace('end_turn', 'tool_use');
    return stream([opening, words(TOKENS), stop]);
  });
  const use = { type: 'tool_use', id: 't', name: 'Bash', input: {} };
  const result = [
    { role: 'user', content: 'go' },
    { role: 'assistant', content: [use] },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't', content: 'done' }] },
  ];
  const answered = await Promise.all(
    Array.from({ length: copies }, async (_none, at) => {
      const first = await ask(core.url, asked(key, at));
      await delay(200 * SECOND_MS);
      const second = await ask(core.url, asked(key, at, { more: { messages: result } }));
      return [first, second].every(isWhole);
    }),
  );
  const failed = answered.filter((good) => !good).length;
  return told({ name, turns: 2 * copies, reaped: Math.max(failed, await watch.cut()) });
}

/** Not a byte for 200 s, as it is when an answer is not streamed. */
function whole(context: Context): Promise<HealthyResult> {
  const answer = JSON.stringify({
    type: 'message',
    content: [],
    stop_reason: 'end_turn',
    usage: { output_tokens: 1 },
  });
  const headers = JSON_HEADERS;
  const steps = async function* (): AsyncGenerator<Step> {
    await delay(200 * SECOND_MS);
    yield answer;
  };
  return healthy(context, 'not streamed, silent for 200 s', steps, { headers, more: { stream: false } });
}

async function healthy(
  { models, core, copies }: Context,
  name: string,
  steps: () => AsyncIterable<Step>,
  { headers, more = {} }: { headers?: readonly string[]; more?: object } = {},
): Promise<HealthyResult> {
  const key = `reaper-${name}`;
  const watch = new Watch();
  models.serve(key, (request) => {
    watch.request(request);
    return headers === undefined ? stream(steps()) : { headers, steps: steps() };
  });
  const answers = await Promise.all(
    Array.from({ length: copies }, (_none, at) => ask(core.url, asked(key, at, { more }))),
  );
  const failed = answers.filter((answer) => !isWhole(answer)).length;
  return told({ name, turns: copies, reaped: Math.max(failed, await watch.cut()) });
}

function told(result: HealthyResult): HealthyResult {
  console.log(`reaper, ${result.name}: ${result.reaped} of ${result.turns} ended`);
  return result;
}

// What is one.

interface Stall {
  readonly name: string;
  readonly timerMs: number;
  /** The model's first answer, that never ends; `written` is called whenever it has sent something. */
  readonly answer: (written: () => void) => Answer | 'silent';
  /** Whether a second attempt may follow. */
  readonly again: boolean;
  readonly asks?: Asking;
}

const STALLS: readonly Stall[] = [
  { name: 'nothing at all', timerMs: FIRST_BYTE_MS, answer: () => 'silent', again: true },
  {
    name: 'nothing after some words',
    timerMs: BETWEEN_BYTES_MS,
    answer: (written) =>
      stream(
        (async function* (): AsyncGenerator<Step> {
          yield frame(10, TOKENS)[0];
          await delay(SECOND_MS);
          written();
          yield words(TOKENS);
          yield 'stall';
        })(),
      ),
    again: false,
  },
  {
    name: 'pings and nothing else',
    timerMs: PINGS_ONLY_MS,
    answer: () => stream(pingsForEver()),
    again: true,
  },
  {
    name: `not streamed, the client waits ${CLIENT_S} s`,
    timerMs: CLIENT_S * SECOND_MS,
    answer: () => 'silent',
    again: false,
    asks: { more: { stream: false }, clientS: CLIENT_S },
  },
];

async function* pingsForEver(): AsyncGenerator<Step> {
  for (;;) {
    yield PING;
    await delay(PING_MS);
  }
}

async function stalled({ models, core, copies }: Context, stall: Stall): Promise<HungResult> {
  const key = `reaper-${stall.name}`;
  const seen = new Set<string>();
  const lateMs: Promise<number>[] = [];
  const script: Script = ({ headers, over }) => {
    const session = `${headers['x-claude-code-session-id']}`;
    // Whoever comes again is served.
    if (seen.has(session)) return stream([frame(10, TOKENS).join(words(TOKENS))]);
    seen.add(session);
    let sinceMs = performance.now();
    const answer = stall.answer(() => {
      sinceMs = performance.now();
    });
    lateMs.push(over.then(() => performance.now() - sinceMs - stall.timerMs));
    return answer;
  };
  models.serve(key, script);
  const answers = await Promise.all(
    Array.from({ length: copies }, (_none, at) => ask(core.url, asked(key, at, stall.asks))),
  );
  const late = await Promise.all(lateMs);
  const result: HungResult = {
    name: stall.name,
    turns: copies,
    ended: late.length,
    lateMs: { least: Math.min(...late), most: Math.max(...late) },
    recovered: answers.filter(isWhole).length,
  };
  const wanted = stall.again ? copies : 0;
  if (result.recovered !== wanted)
    throw new Error(`${stall.name}: ${result.recovered} served again, not ${wanted}`);
  console.log(
    `reaper, ${stall.name}: ${result.ended} of ${copies} ended, ${result.lateMs.least.toFixed(0)} to ` +
      `${result.lateMs.most.toFixed(0)} ms after the timer, ${result.recovered} served by a second attempt`,
  );
  return result;
}

// Both.

interface Asking {
  /** Members of the body. */
  readonly more?: object;
  /** How long the client waits for an answer that is not streamed, as the SDKs say. */
  readonly clientS?: number;
}

function asked(key: string, at: number, { more = {}, clientS = 600 }: Asking = {}) {
  return {
    path: '/v1/messages',
    headers: {
      'content-type': 'application/json',
      'anthropic-version': '2023-06-01',
      'x-api-key': key,
      'x-claude-code-session-id': sessionOf(key, at),
      'x-stainless-timeout': `${clientS}`,
    },
    body: body(`turn of ${key} ${at}`, more),
  };
}

function sessionOf(key: string, at: number): string {
  return `${key.replaceAll(/[^a-z0-9]+/g, '-')}-${at}`;
}

function isWhole({ status, complete, headers, body: bytes }: Awaited<ReturnType<typeof readAll>>): boolean {
  if (status !== 200 || !complete) return false;
  return (
    headers['content-type'] === JSON_HEADERS[1] ||
    (bytes.includes('message_stop') && !bytes.includes('event: error'))
  );
}

/** What became of the requests of one account, as the model saw it. */
class Watch {
  requests = 0;
  readonly #over: Promise<boolean>[] = [];

  request({ over }: Received): void {
    this.requests += 1;
    this.#over.push(over);
  }

  /** How many of them were closed before their answers had ended. */
  async cut(): Promise<number> {
    const whole = await Promise.all(this.#over);
    return whole.filter((ended) => !ended).length;
  }
}
