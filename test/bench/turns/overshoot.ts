// SPDX-License-Identifier: Apache-2.0
// Forty agents that want several times the tokens that their account has a minute, in turns of any size: how far the
// account is passed in the worst 60 s. The provider only counts: nothing but the one before it keeps to the limit.
import { setTimeout as delay } from 'node:timers/promises';
import { generator } from '../../../daemon/sim/random.ts';
import { Account } from './account.ts';
import { Agent } from './agent.ts';
import type { Core } from './core.ts';
import { limited, type Models } from './model.ts';

const AGENTS = 40;
const MINUTE_MS = 60_000;
const OUTPUT_PER_MIN = 80_000;
const INPUT_PER_MIN = 200_000;
/** As a current model. */
const TOKENS_PER_S = 100;
/** How long the gateway without reservations waits before it looks again. */
const LOOK_MS = 50;
/** What the proxy takes English for. */
const BYTES_PER_TOKEN = 4;

export interface OvershootResult {
  /** The limit that is short. */
  readonly limit: 'inputTokens' | 'outputTokens';
  /** `counted`: sent directly, by agents that share a count of what was used, and stop while it is at the limit. */
  readonly through: 'agentrm' | 'counted';
  readonly turns: number;
  readonly failed: number;
  /** Of the worst 60 s, over the limit, as a part of it; below 0: never reached. */
  readonly overshoot: number;
  /** Of what the limit allows in that time. */
  readonly used: number;
}

type Limit = OvershootResult['limit'];

/** All in the same minutes, each on an account of its own. */
export function overshoots(models: Models, core: Core, minutes: number): Promise<OvershootResult[]> {
  const limits = ['outputTokens', 'inputTokens'] as const;
  return Promise.all(
    limits.flatMap((limit) =>
      (['agentrm', 'counted'] as const).map((through) => overshoot(models, core, limit, through, minutes)),
    ),
  );
}

async function overshoot(
  models: Models,
  core: Core,
  limit: Limit,
  through: OvershootResult['through'],
  minutes: number,
): Promise<OvershootResult> {
  const key = `overshoot-${limit}-${through}`;
  const perMin = { requests: 10_000, inputTokens: 1e6, outputTokens: 1e6, ...limitsOf(limit) };
  const account = new Account({ perMin, counting: 'window', tells: true, enforces: false });
  const random = generator(limit.length);
  models.serve(
    key,
    limited(account, ({ body }) => {
      const { outputTokens, tokensPerByte } = JSON.parse(
        /\[\[(.*?)\]\]/.exec(unquoted(body))?.[1] ?? '',
      ) as Plan;
      return { inputTokens: Math.round(body.length * tokensPerByte), outputTokens, tokensPerS: TOKENS_PER_S };
    }),
  );
  const gate = new CountingGate(perMin[limit]);
  const untilMs = performance.now() + minutes * MINUTE_MS;
  const url = through === 'agentrm' ? core.url : models.url;
  let turns = 0;
  let failed = 0;
  await Promise.race([
    delay(minutes * MINUTE_MS),
    Promise.all(
      Array.from({ length: AGENTS }, async (_none, at) => {
        const agent = new Agent({ url, key, session: `${key}-${at}` });
        // Tokenizers differ by language: within a session they differ less.
        const perByte = (0.7 + 0.6 * random()) / BYTES_PER_TOKEN;
        while (performance.now() < untilMs) {
          const plan: Plan = {
            outputTokens: limit === 'outputTokens' ? skewed(random, 600, 8_000) : 50,
            tokensPerByte: perByte * (0.95 + 0.1 * random()),
          };
          const inputTokens = limit === 'inputTokens' ? skewed(random, 4_000, 40_000) : 100;
          if (through === 'counted') await gate.open();
          const { error } = await agent.turn(`[[${JSON.stringify(plan)}]]${'one '.repeat(inputTokens)}`);
          const used = { inputTokens: inputTokens * BYTES_PER_TOKEN * plan.tokensPerByte, ...plan };
          gate.used(used[limit]);
          turns += 1;
          if (error !== null) failed += 1;
        }
      }),
    ),
  ]);
  const result: OvershootResult = {
    limit,
    through,
    turns,
    failed,
    overshoot: account.worst(limit) - 1,
    used: account.total(limit) / (perMin[limit] * minutes),
  };
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  console.log(
    `overshoot of ${limit}, ${through}: ${percent(result.overshoot)} over the limit in the worst minute, ` +
      `${percent(result.used)} of it used, ${turns} turns, ${failed} failed`,
  );
  return result;
}

/** What the agent tells the model to do. */
interface Plan {
  readonly outputTokens: number;
  readonly tokensPerByte: number;
}

function limitsOf(limit: Limit): Partial<Record<Limit, number>> {
  return limit === 'outputTokens' ? { outputTokens: OUTPUT_PER_MIN } : { inputTokens: INPUT_PER_MIN };
}

/** Of the first bytes of a body, the text without the escapes of JSON. */
function unquoted(body: Buffer): string {
  return body.toString('latin1', 0, 512).replaceAll('\\"', '"');
}

/** Most are short, some are ten times the mean. */
function skewed(random: () => number, mean: number, most: number): number {
  return Math.min(most, 1 + Math.round(-mean * Math.log(1 - random())));
}

/** A gateway that charges a turn when its answer has ended, and lets all go while the last minute's sum is under. */
class CountingGate {
  readonly #limit: number;
  readonly #uses: { readonly atMs: number; readonly amount: number }[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  used(amount: number): void {
    this.#uses.push({ atMs: performance.now(), amount });
  }

  async open(): Promise<void> {
    while (this.#inMinute() >= this.#limit) await delay(LOOK_MS);
  }

  #inMinute(): number {
    const sinceMs = performance.now() - MINUTE_MS;
    while ((this.#uses[0]?.atMs ?? sinceMs) < sinceMs) this.#uses.shift();
    return this.#uses.reduce((sum, { amount }) => sum + amount, 0);
  }
}
