// SPDX-License-Identifier: Apache-2.0
// More agents than a provider of 50 requests a minute bears, beside the same agents without us.
import { generator } from '../../../daemon/sim/random.ts';
import { Account } from './account.ts';
import { Agent } from './agent.ts';
import type { Core } from './core.ts';
import { limited, type Models } from './model.ts';

const REQUESTS_PER_MIN = 50;
/** Turns of a second or two: as fast as storms come. */
const TOKENS_PER_S = 50;

export interface StormResult {
  readonly agents: number;
  /** Whether the provider tells of its limit before it is reached. */
  readonly told: boolean;
  readonly through: 'agentrm' | 'direct';
  readonly turns: number;
  /** Turns that failed for good, of which each ends its agent's work. */
  readonly failedTurns: number;
  readonly failedAgents: number;
  /** Answers of 429 that the provider gave, and that agents saw. */
  readonly refused: number;
  readonly refusalsSeen: number;
  readonly longestMs: number;
  readonly wallMs: number;
}

interface Storm {
  readonly agents: number;
  readonly told: boolean;
  readonly through: StormResult['through'];
  /** Of all agents together. */
  readonly turns: number;
}

/** Storms, all in the same minutes, each on an account of its own. @param turns of each */
export function storms(
  models: Models,
  core: Core,
  agents: readonly number[],
  turns: number,
): Promise<StormResult[]> {
  const all = agents.flatMap((each) =>
    [true, false].flatMap((told) =>
      (['agentrm', 'direct'] as const).map((through) => ({ agents: each, told, through, turns })),
    ),
  );
  return Promise.all(all.map((one) => storm(models, core, one)));
}

async function storm(
  models: Models,
  core: Core,
  { agents, told, through, turns }: Storm,
): Promise<StormResult> {
  const key = `storm-${agents}-${told}-${through}`;
  const random = generator(agents);
  const perMin = { requests: REQUESTS_PER_MIN };
  const account = new Account({ perMin, counting: 'bucket', tells: told, enforces: true });
  models.serve(
    key,
    limited(account, () => ({
      inputTokens: 100,
      outputTokens: 50 + Math.floor(100 * random()),
      tokensPerS: TOKENS_PER_S,
    })),
  );
  const startMs = performance.now();
  const url = through === 'direct' ? models.url : core.url;
  const each = Math.ceil(turns / agents);
  const results = await Promise.all(
    Array.from({ length: agents }, async (_none, at) => {
      const agent = new Agent({ url, key, session: `${key}-${at}` });
      let longestMs = 0;
      for (let turn = 1; turn <= each; turn += 1) {
        const { error, ms } = await agent.turn(`turn ${turn} of ${key}-${at}`);
        longestMs = Math.max(longestMs, ms);
        if (error !== null)
          return { turns: turn, failed: true, seen: agent.statuses.get(429) ?? 0, longestMs };
      }
      return { turns: each, failed: false, seen: agent.statuses.get(429) ?? 0, longestMs };
    }),
  );
  const failed = results.filter((one) => one.failed).length;
  const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);
  const result: StormResult = {
    agents,
    told,
    through,
    turns: sum(results.map((one) => one.turns)),
    failedTurns: failed,
    failedAgents: failed,
    refused: account.refused,
    refusalsSeen: sum(results.map(({ seen }) => seen)),
    longestMs: Math.max(...results.map((one) => one.longestMs)),
    wallMs: performance.now() - startMs,
  };
  console.log(
    `storm of ${agents}, limit ${told ? 'told' : 'not told'}, ${through}: ${failed} agents failed in ${result.turns} turns, ` +
      `${result.refused} answers of 429, ${result.refusalsSeen} seen by agents, longest turn ${(result.longestMs / 1000).toFixed(0)} s, ` +
      `${(result.wallMs / 1000).toFixed(0)} s`,
  );
  return result;
}
