// SPDX-License-Identifier: Apache-2.0
// One greedy agent among nine others, who all want more than there is, and the same nine alone in the same minutes.
import { setTimeout as delay } from 'node:timers/promises';
import { jainIndex } from '../../../daemon/scheduler/fairness.ts';
import { generator } from '../../../daemon/sim/random.ts';
import { quantile } from '../stats.ts';
import { Account } from './account.ts';
import { Agent } from './agent.ts';
import type { Core } from './core.ts';
import { limited, type Models } from './model.ts';

const OTHERS = 9;
/** Turns that each agent has under way or waiting at any time. */
const AT_ONCE = 2;
const GREEDY_AT_ONCE = 20;
const REQUESTS_PER_MIN = 240;
/** Words are written so fast that some hundred turns make a minute. */
const TOKENS_PER_S = 400;
const MINUTE_MS = 60_000;
/** A bucket is full at first and lanes are empty: nobody has to share anything yet. */
const SETTLE_MS = MINUTE_MS;

export interface FairnessResult {
  /** What there is too little of. */
  readonly short: 'lanes' | 'requests';
  /** Of what the ten were served of it: tokens, which hold lanes, or requests. */
  readonly jain: number;
  /** What the greedy one was served, over the mean of the others. */
  readonly greedyShare: number;
  readonly othersP95Ms: number;
  readonly aloneP95Ms: number;
  /** The first over the second. */
  readonly p95Ratio: number;
  readonly turns: number;
  readonly failed: number;
}

interface Served {
  readonly amounts: readonly number[];
  /** Of the nine. */
  readonly timesMs: readonly number[];
  readonly turns: number;
  readonly failed: number;
}

/** @param core with so few lanes that they are short, or as many as there are */
export async function fairness(
  models: Models,
  core: Core,
  short: FairnessResult['short'],
  minutes: number,
): Promise<FairnessResult> {
  const [greedy, alone] = (await Promise.all(
    [GREEDY_AT_ONCE, 0].map((first) => load(models, core, short, first, minutes)),
  )) as [Served, Served];
  const [first = 0, ...others] = greedy.amounts;
  const othersP95Ms = quantile(greedy.timesMs, 0.95);
  const aloneP95Ms = quantile(alone.timesMs, 0.95);
  const result: FairnessResult = {
    short,
    jain: jainIndex(greedy.amounts),
    greedyShare: (first * others.length) / others.reduce((sum, amount) => sum + amount, 0),
    othersP95Ms,
    aloneP95Ms,
    p95Ratio: othersP95Ms / aloneP95Ms,
    turns: greedy.turns + alone.turns,
    failed: greedy.failed + alone.failed,
  };
  console.log(
    `fairness, too few ${short}: Jain's index ${result.jain.toFixed(3)}, the greedy one has ${result.greedyShare.toFixed(2)} of another's, ` +
      `P95 of the others ${(othersP95Ms / 1000).toFixed(1)} s, alone ${(aloneP95Ms / 1000).toFixed(1)} s (×${result.p95Ratio.toFixed(2)}), ` +
      `${result.turns} turns, ${result.failed} failed`,
  );
  return result;
}

/** @param first how many turns the first agent has at once; 0: it is not there */
async function load(
  models: Models,
  core: Core,
  short: FairnessResult['short'],
  first: number,
  minutes: number,
): Promise<Served> {
  const key = `fairness-${short}-${first}`;
  const perMin = short === 'requests' ? { requests: REQUESTS_PER_MIN } : {};
  const account = new Account({ perMin, counting: 'bucket', tells: true, enforces: true });
  const random = generator(minutes);
  models.serve(
    key,
    limited(account, () => ({
      inputTokens: 100,
      outputTokens: Math.min(2_000, 20 + Math.round(-300 * Math.log(1 - random()))),
      tokensPerS: TOKENS_PER_S,
    })),
  );
  const startMs = performance.now();
  const untilMs = startMs + minutes * MINUTE_MS;
  const amounts = new Array<number>(first > 0 ? OTHERS + 1 : OTHERS).fill(0);
  const timesMs: number[] = [];
  let turns = 0;
  let failed = 0;
  const work = async (at: number, name: string, agent: Agent): Promise<void> => {
    for (let turn = 0; performance.now() < untilMs; turn += 1) {
      const { error, ms, outputTokens } = await agent.turn(`turn ${turn} of ${name}`);
      const nowMs = performance.now();
      if (nowMs - startMs < SETTLE_MS || nowMs > untilMs) continue;
      turns += 1;
      if (error !== null) failed += 1;
      else amounts[at] = (amounts[at] ?? 0) + (short === 'lanes' ? outputTokens : 1);
      if (first === 0 || at > 0) timesMs.push(ms);
    }
  };
  const workers = amounts.flatMap((_none, at) => {
    const agent = new Agent({ url: core.url, key, session: `${key}-${at}` });
    const atOnce = first > 0 && at === 0 ? first : AT_ONCE;
    return Array.from({ length: atOnce }, (_nothing, number) => work(at, `${at}.${number}`, agent));
  });
  // Those of the greedy one that still wait are of no interest.
  await Promise.race([delay(minutes * MINUTE_MS), Promise.all(workers)]);
  return { amounts, timesMs, turns, failed };
}
