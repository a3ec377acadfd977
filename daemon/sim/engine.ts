// SPDX-License-Identifier: Apache-2.0
import { Scheduler } from '../scheduler/scheduler.ts';
import type { Lease, Turn, Verdict } from '../scheduler/types.ts';
import { SimulatedClock } from './clock.ts';
import { disciplineFor, type Policy, type Preset, presets, settingsFor } from './policies.ts';
import { generator } from './random.ts';
import { type LoadTurn, loadOf, type Scenario } from './scenarios.ts';

/** What became of a turn. */
export interface TurnRecord {
  readonly turn: LoadTurn;
  readonly endedAtMs: number;
  /** In the queue, before all of its attempts together. */
  readonly waitedMs: number;
  readonly attempts: number;
  readonly hung: boolean;
  /** Given up by the reaper. */
  readonly reaped: boolean;
  /** Lane time without progress. */
  readonly lostMs: number;
}

/** Healthy responses bring something at least so often: slow, and well below what counts as silence. */
const CHUNK_MS = 5_000;
/** Keeps the scheduler's own chance (jitter) apart from the load's. */
const JITTER_SEED = 0x5eed;

/**
 * Plays one load on the scheduler that the proxy runs, with a simulated clock and simulated upstream. Turns that
 * hang are not told to the scheduler: it sees that nothing comes.
 */
export function simulate(scenario: Scenario, policy: Policy, preset: Preset, seed: number): TurnRecord[] {
  const clock = new SimulatedClock();
  const discipline = disciplineFor(policy);
  const scheduler = new Scheduler({
    clock,
    random: generator(seed ^ JITTER_SEED),
    settings: settingsFor(policy, preset, scenario.lanes),
    ...(discipline === undefined ? {} : { discipline }),
  });
  const players = loadOf(scenario, seed).map((turn) => new Player(turn, scenario, preset, clock));
  for (const player of players) {
    clock.setTimer(player.load.arrivalMs, () => player.submitTo(scheduler));
  }
  clock.run();
  return players.map((player) => player.record());
}

/** One turn's client and upstream. */
class Player {
  readonly load: LoadTurn;
  readonly #scenario: Scenario;
  readonly #retriesHang: boolean;
  readonly #clock: SimulatedClock;
  #endedAtMs: number | null = null;
  #waitedMs = 0;
  #attempts = 0;
  #hung = false;
  #reaped = false;
  #lostMs = 0;

  constructor(load: LoadTurn, scenario: Scenario, preset: Preset, clock: SimulatedClock) {
    this.load = load;
    this.#scenario = scenario;
    this.#retriesHang = presets[preset].retriesHang;
    this.#clock = clock;
  }

  submitTo(scheduler: Scheduler): void {
    scheduler.submit(turnOf(this.load), {
      onLease: (lease) => this.#serve(lease),
      onHung: ({ heldMs }, verdict) => {
        this.#lostMs += heldMs;
        this.#failed(verdict);
      },
      onRefused: ({ message }) => {
        throw new Error(`turn ${this.load.index}: ${message}`);
      },
    });
  }

  record(): TurnRecord {
    if (this.#endedAtMs === null) throw new Error(`turn ${this.load.index} has not ended`);
    return {
      turn: this.load,
      endedAtMs: this.#endedAtMs,
      waitedMs: this.#waitedMs,
      attempts: this.#attempts,
      hung: this.#hung,
      reaped: this.#reaped,
      lostMs: this.#lostMs,
    };
  }

  #serve(lease: Lease): void {
    this.#attempts += 1;
    this.#waitedMs += lease.waitedMs;
    const { load } = this;
    if (lease.attempt === 0) {
      this.#hung = load.hangDraw < this.#scenario.hangShare(this.#clock.now());
      if (this.#hung) this.#hang(lease, load.hangMs);
      else this.#answer(lease, load.serviceMs);
    } else if (load.retryServed[lease.attempt - 1]) {
      this.#answer(lease, load.serviceMs);
    } else if (!this.#retriesHang) {
      this.#failed(lease.end({ kind: 'error', status: null }));
    }
    // Else it hangs until the reaper notices.
  }

  /** Nothing comes, until the upstream itself ends it. */
  #hang(lease: Lease, hangMs: number): void {
    this.#clock.setTimer(hangMs, () => {
      if (!lease.live) return;
      this.#lostMs += hangMs;
      lease.end({ kind: 'ok' });
      this.#endedAtMs = this.#clock.now();
    });
  }

  #answer(lease: Lease, leftMs: number): void {
    lease.progress('content');
    lease.committed();
    this.#clock.setTimer(Math.min(leftMs, CHUNK_MS), () => {
      if (leftMs > CHUNK_MS) {
        this.#answer(lease, leftMs - CHUNK_MS);
        return;
      }
      lease.end({ kind: 'ok' });
      this.#endedAtMs = this.#clock.now();
    });
  }

  #failed(verdict: Verdict): void {
    if (verdict.action !== 'fail') return;
    this.#reaped = true;
    this.#endedAtMs = this.#clock.now();
  }
}

function turnOf({ index, agent, class: turnClass }: LoadTurn): Turn {
  return {
    id: `${index}`,
    session: `agent-${agent}`,
    provider: 'simulated',
    credential: 'simulated',
    modelClass: 'simulated',
    class: turnClass,
    // A turn of the paper is a message and its response: a run of its own.
    runStart: true,
    inputTokens: 0,
    streaming: true,
    retryable: true,
    bodyHash: () => `${index}`,
  };
}
