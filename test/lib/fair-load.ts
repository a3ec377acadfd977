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
  /** What there is too little of; default lanes. */
  readonly short?: 'lanes' | 'requests';
}

export interface FairResult {
  /** Of the tokens that each agent was served, or of its requests if those are short. */
  readonly jain: number;
  readonly served: readonly number[];
  /** Of the other agents' response times. */
  readonly othersP95Ms: number;
}

const AGENTS = 10;
const LANES = 4;
/** Turns are shorter then: a minute's worth would be gone in seconds. */
const REQUESTS_PER_MIN = 240;
const TOKEN_MS = { lanes: 10, requests: 2 } as const;

/** Ten agents on four lanes, or under a limit of requests, that all have more to ask than they can get. */
export function fairLoad(load: FairLoad): FairResult {
  const { firstAgentTurns, seed, minutes, discipline, equalWithin, short = 'lanes' } = load;
  const clock = new SimulatedClock();
  const scheduler = new Scheduler({
    clock,
    random: generator(seed),
    settings: settings({
      ...(short === 'lanes'
        ? { lanes: { fixed: LANES } }
        : { limits: { configured: [{ perMin: { requests: REQUESTS_PER_MIN } }] } }),
      queue: { maxWaitMs: Number.POSITIVE_INFINITY },
      ...(equalWithin === undefined ? {} : { fairness: { equalWithin } }),
    }),
    ...(discipline === undefined ? {} : { discipline }),
  });
  const endMs = minutes * 60_000;
  const served = new Array<number>(AGENTS).fill(0);
  const othersMs: number[] = [];
  const ask = (agent: number, random: () => number) => {
    const submittedAtMs = clock.now();
    if (submittedAtMs >= endMs) return;
    const wants = Math.min(3_000, Math.round(50 - 500 * Math.log(1 - random())));
    const write = (lease: Lease, left: number) => {
      lease.progress('content');
      clock.setTimer(Math.min(left * TOKEN_MS[short], 10_000), () => {
        if (left > 1_000) {
          write(lease, left - 1_000);
          return;
        }
        lease.usage({ outputTokens: wants });
        lease.end({ kind: 'ok' });
        served[agent] = (served[agent] ?? 0) + (short === 'lanes' ? wants : 1);
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
  return { jain: jainIndex(served), served, othersP95Ms: othersMs[Math.floor(othersMs.length * 0.95)] ?? 0 };
}
