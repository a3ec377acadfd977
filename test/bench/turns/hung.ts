// SPDX-License-Identifier: Apache-2.0
// What is a hang, and when it is ended.
import { setTimeout as delay } from 'node:timers/promises';
import { ask } from '../../proxy/lab.ts';
import type { Answer, Script, Step } from '../../proxy/upstream.ts';
import { frame, stream, words } from './model.ts';
import { type Asking, asked, type Context, isWhole, PING, PING_MS, SECOND_MS, TOKENS } from './watched.ts';

/** The timers as they are shipped. */
const FIRST_BYTE_MS = 120 * SECOND_MS;
const BETWEEN_BYTES_MS = 120 * SECOND_MS;
const PINGS_ONLY_MS = 280 * SECOND_MS;
/** What the client itself says (`x-stainless-timeout`). */
const CLIENT_S = 60;

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

/** All of them, at the same time. */
export function hungTurns(context: Context): Promise<HungResult[]> {
  return Promise.all(STALLS.map((stall) => stalled(context, stall)));
}

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
