// SPDX-License-Identifier: Apache-2.0
// What looks like a hang and is none.
import { setTimeout as delay } from 'node:timers/promises';
import { ask, open } from '../../proxy/lab.ts';
import { JSON_HEADERS, type Step } from '../../proxy/upstream.ts';
import { Agent } from './agent.ts';
import { frame, stream, words } from './model.ts';
import { asked, type Context, isWhole, PING, PING_MS, SECOND_MS, TOKENS, Watch } from './watched.ts';

/** Far more than the buffers of sockets hold. */
const UNREAD_PIECES = 4_000;
const PIECE_TOKENS = 1_024;
/** Lanes at the start, all of which are taken. */
const LANES = 32;

export interface HealthyResult {
  readonly name: string;
  readonly turns: number;
  /** Turns whose client did not have its whole answer, or whose connection to the model was closed before its end. */
  readonly reaped: number;
}

/** All of them, at the same time. */
export function healthyTurns(context: Context): Promise<HealthyResult[]> {
  const all = [thinking, late, slowTokens, queued, slowReader, longTool, whole];
  return Promise.all(all.map((one) => one(context)));
}

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
