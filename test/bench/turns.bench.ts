// SPDX-License-Identifier: Apache-2.0
// What becomes of turns when there is too little for all, or when they go wrong: the real core before a stand-in for the
// model API, on the wire, in real minutes, because limits count by the minute and the reaper's timers are as they are
// shipped. What takes minutes runs at the same time, each on accounts of its own; the baselines too.
import { setTimeout as delay } from 'node:timers/promises';
import { count, record } from './record.ts';
import { Core } from './turns/core.ts';
import { type FairnessResult, fairness } from './turns/fairness.ts';
import { type SimulatedResult, simulatedLeaks, type WireResult, wireLeaks } from './turns/leaks.ts';
import { Models } from './turns/model.ts';
import { type OvershootResult, overshoots } from './turns/overshoot.ts';
import { type ReaperResults, reaping } from './turns/reaper.ts';
import { type StormResult, storms } from './turns/storm.ts';

/** Of a storm, all its agents together. */
const turns = count('TURNS', 200);
/** Of tokens and of fairness. */
const minutes = count('MINUTES', 5);
/** Turns of each kind that the reaper meets. */
const copies = count('COPIES', 5);
/** Requests that go wrong on the wire, and turns that do so on a simulated clock. */
const aborts = count('ABORTS', 10_000);
const ends = count('ENDS', 100_000);

/** A turn that is not ended although it should be would be waited for for ever. */
const LONGEST_MS = (minutes + 10) * 60_000;
/** So few that ten agents want more: on all others there are as many as the model bears. */
const FEW_LANES = 'proxy: { lanes: { fixed: 8 } }\n';

export interface TurnsGoal {
  readonly goal: string;
  readonly wanted: number;
  readonly found: number;
  readonly reached: boolean;
}

export interface TurnsResults {
  readonly storms: readonly StormResult[];
  readonly overshoots: readonly OvershootResult[];
  readonly fairness: readonly FairnessResult[];
  readonly reaper: ReaperResults;
  readonly wire: WireResult;
  readonly simulated: SimulatedResult;
  readonly goals: readonly TurnsGoal[];
}

type Found = Omit<TurnsResults, 'goals'>;

async function measure(): Promise<Found> {
  const models = new Models();
  await models.listen();
  const cores: Core[] = [];
  const start = async (settings?: string): Promise<Core> => {
    const core = await Core.start(models, settings);
    cores.push(core);
    return core;
  };
  try {
    return await Promise.race([experiments(models, start), tooLong()]);
  } finally {
    for (const core of cores) await core.close();
    await models.close();
  }
}

async function tooLong(): Promise<never> {
  await delay(LONGEST_MS, undefined, { ref: false });
  throw new Error(`not all turns have ended after ${LONGEST_MS / 60_000} minutes`);
}

async function experiments(models: Models, start: (settings?: string) => Promise<Core>): Promise<Found> {
  const core = await start();
  const narrow = await start(FEW_LANES);
  console.log(`storms, tokens, fairness and the reaper, together for some ${Math.max(5, minutes)} minutes:`);
  const [storm, overshoot, lanes, requests, reaper] = await Promise.all([
    storms(models, core, [11, 50], turns),
    overshoots(models, core, minutes),
    fairness(models, narrow, 'lanes', minutes),
    fairness(models, core, 'requests', minutes),
    reaping(models, core, copies),
  ]);
  const wire = await wireLeaks(models, start, aborts);
  const simulated = simulatedLeaks(ends);
  return { storms: storm, overshoots: overshoot, fairness: [lanes, requests], reaper, wire, simulated };
}

function goalsOf({
  storms: storm,
  overshoots: overshoot,
  fairness: fair,
  reaper,
  wire,
  simulated,
}: Found): TurnsGoal[] {
  const goals: TurnsGoal[] = [];
  const most = (goal: string, wanted: number, found: number): void => {
    goals.push({ goal: `${goal} ≤`, wanted, found, reached: found <= wanted });
  };
  const least = (goal: string, wanted: number, found: number): void => {
    goals.push({ goal: `${goal} ≥`, wanted, found, reached: found >= wanted });
  };
  for (const { agents, told, through, failedAgents, refused, refusalsSeen } of storm) {
    if (through !== 'agentrm') continue;
    const name = `storm of ${agents}, limit ${told ? 'told' : 'not told'}`;
    most(`${name}: agents that failed`, 0.01, failedAgents / agents);
    most(`${name}: answers of 429 that reach agents`, 0.01, refusalsSeen / Math.max(1, refused));
  }
  for (const one of overshoot) {
    if (one.through === 'agentrm')
      most(`${one.limit} over the limit in the worst minute`, 0.05, one.overshoot);
  }
  for (const { short, jain, p95Ratio, failed } of fair) {
    least(`too few ${short}, one greedy agent: Jain's index`, 0.95, jain);
    most(`too few ${short}, one greedy agent: P95 of the others, to theirs alone`, 1.2, p95Ratio);
    most(`too few ${short}: failed turns`, 0, failed);
  }
  const falsely = reaper.healthy.reduce((sum, { reaped }) => sum + reaped, 0);
  const hung = reaper.hung.reduce((sum, one) => sum + one.turns, 0);
  most('healthy turns that were reaped', 0, falsely);
  most('turns that the core counts as reaped, without those that hung', 0, reaper.reaped - hung);
  most('runs that were taken for abandoned', 0, reaper.abandoned);
  for (const { name, turns: all, ended, lateMs } of reaper.hung) {
    least(`${name}: turns that were ended`, all, ended);
    most(`${name}: ended off the timer, ms`, 1_000, Math.max(lateMs.most, -lateMs.least));
  }
  const { lanes, waiting, reserved, drift, bodyBytes, descriptors, rssBytes } = wire;
  most('after turns that went wrong: lanes', 0, lanes);
  most('turns that wait', 0, waiting);
  most('reserved of limits', 0, reserved);
  most('drift of a bucket', 0, drift);
  most('bytes of bodies', 0, bodyBytes);
  most('descriptors more than before', 0, descriptors.after - descriptors.before);
  const middle = rssBytes[Math.floor(rssBytes.length / 2)] ?? 0;
  most('resident memory at the end, to that after half of them', 1.1, (rssBytes.at(-1) ?? 0) / middle);
  least('on a simulated clock: turns that did not end well, and left nothing', ends, simulated.ends);
  return goals;
}

const found = await measure();
const goals = goalsOf(found);
console.log('\ngoals:');
for (const { goal, wanted, found: value, reached } of goals) {
  console.log(`  ${reached ? 'reached' : 'MISSED '}  ${goal} ${wanted}: ${Number(value.toPrecision(4))}`);
}
const results: TurnsResults = { ...found, goals };
record('turns', { turns, minutes, copies, aborts, ends }, results);
if (goals.some(({ reached }) => !reached)) process.exitCode = 1;
