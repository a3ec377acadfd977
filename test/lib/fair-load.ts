// SPDX-License-Identifier: Apache-2.0
import { jainIndex } from '../../daemon/scheduler/fairness.ts';
import type { Discipline } from '../../daemon/scheduler/queue.ts';
import { Scheduler } from '../../daemon/scheduler/scheduler.ts';
import type { Lease } from '../../daemon/scheduler/types.ts';
import { SimulatedClock } from '../../daemon/sim/clock.ts';
import { generator } from '../../daemon/sim/random.ts';
import { settings, turn } from './scheduler.ts';

export interface FairLoad {
  /** How many turns the first agent has under way or waiting at any time; the others have two. */
  readonly firstAgentTurns: number;
  readonly seed: number;
  readonly minutes: number;
  /** Instead of the scheduler's own. */
  readonly discipline?: () => Discipline;
  readonly equalWithin?: number;
}

export interface FairResult {
  /** Of the tokens that each agent was served. */
  readonly jain: number;
  readonly tokens: readonly number[];
  /** Of the other agents' response times. */
  readonly othersP95Ms: number;
}

const AGENTS = 10;
const LANES = 4;

/** Ten agents on four lanes that all have more to ask than they can get. */
export function fairLoad({ firstAgentTurns, seed, minutes, discipline, equalWithin }: FairLoad): FairResult {
  const clock = new SimulatedClock();
  const scheduler = new Scheduler({
    clock,
    random: generator(seed),
    settings: settings({
      lanes: { fixed: LANES },
      queue: { maxWaitMs: Number.POSITIVE_INFINITY },
      ...(equalWithin === undefined ? {} : { fairness: { equalWithin } }),
    }),
    ...(discipline === undefined ? {} : { discipline }),
  });
  const endMs = minutes * 60_000;
  const tokens = new Array<number>(AGENTS).fill(0);
  const othersMs: number[] = [];
  const ask = (agent: number, random: () => number) => {
    const submittedAtMs = clock.now();
    if (submittedAtMs >= endMs) return;
    const wants = Math.min(3_000, Math.round(50 - 500 * Math.log(1 - random())));
    const write = (lease: Lease, left: number) => {
      lease.progress('content');
      clock.setTimer(Math.min(left * 10, 10_000), () => {
        if (left > 1_000) {
          write(lease, left - 1_000);
          return;
        }
        lease.usage({ outputTokens: wants });
        lease.end({ kind: 'ok' });
        tokens[agent] = (tokens[agent] ?? 0) + wants;
        if (agent > 0) othersMs.push(clock.now() - submittedAtMs);
        ask(agent, random);
      });
    };
    scheduler.submit(turn({ session: `agent-${agent}` }), {
      onLease: (lease) => write(lease, wants),
      onHung: ({ cause }) => {
        throw new Error(`hung: ${cause}`);
      },
      onRefused: ({ message }) => {
        throw new Error(message);
      },
    });
  };
  for (let agent = 0; agent < AGENTS; agent += 1) {
    const random = generator(seed * AGENTS + agent);
    for (let turns = 0; turns < (agent === 0 ? firstAgentTurns : 2); turns += 1) ask(agent, random);
  }
  clock.run(endMs);
  othersMs.sort((a, b) => a - b);
  return { jain: jainIndex(tokens), tokens, othersP95Ms: othersMs[Math.floor(othersMs.length * 0.95)] ?? 0 };
}
