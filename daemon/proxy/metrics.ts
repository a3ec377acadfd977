// SPDX-License-Identifier: Apache-2.0
import { Tally } from '../control/tally.ts';
import { Counter, Gauge, Histogram, Registry } from '../prometheus.ts';
import { REFUSAL_CODES } from '../scheduler/refusals.ts';
import { RESOURCES } from '../scheduler/resources.ts';
import { SUBSCRIPTION_STATUSES, SUBSCRIPTION_WINDOWS } from '../scheduler/subscription-headers.ts';
import { TURN_CLASSES, type TurnScheduler } from '../scheduler/types.ts';
import { PROVIDERS, type Provider } from './routes.ts';
import { TURN_OUTCOMES, type TurnOutcome, type TurnReport } from './turn.ts';

/** From a free lane to the longest wait that a client bears. */
const WAIT_BUCKETS_S = [0.001, 0.01, 0.1, 1, 5, 15, 30, 60, 120, 240];

/** Why the proxy itself turned a request away before it was a turn. */
export const REJECTIONS = [
  'too-large', // a body over the limit
  'no-room', // all bodies together over theirs
  'bad-request', // not HTTP, or for another host
  'headers-too-large',
  'slow', // it did not send its request in time
  'upgrade', // a WebSocket
] as const;
export type Rejection = (typeof REJECTIONS)[number];

/** The metrics of the core: their names stand here and nowhere else. Rules as for those of the daemon. */
export class ProxyMetrics {
  readonly #registry = new Registry();
  readonly #turns: Tally<TurnOutcome>;
  readonly #inputTokens: Tally<Provider>;
  readonly #outputTokens: Tally<Provider>;
  readonly #passed: Tally<Provider>;
  readonly #rejected: Tally<Rejection>;
  readonly #wait: Histogram;

  constructor(scheduler: TurnScheduler, bodyBytes: () => number) {
    const registry = this.#registry;
    const by = <L extends string>(name: string, help: string, label: string, values: readonly L[]) =>
      new Tally<L>(registry, { name, help, label: { name: label, values } });
    this.#turns = by('agentrm_turns_total', 'Turns that ended.', 'outcome', TURN_OUTCOMES);
    this.#inputTokens = by(
      'agentrm_turn_input_tokens_total',
      'Input tokens of turns, as the API counts them towards its limits.',
      'provider',
      PROVIDERS,
    );
    this.#outputTokens = by(
      'agentrm_turn_output_tokens_total',
      'Output tokens of turns.',
      'provider',
      PROVIDERS,
    );
    this.#passed = by('agentrm_proxy_passed_total', 'Requests that are no turns.', 'provider', PROVIDERS);
    this.#rejected = by(
      'agentrm_proxy_rejected_total',
      'Requests that the proxy refused.',
      'reason',
      REJECTIONS,
    );
    this.#wait = new Histogram({
      name: 'agentrm_turn_wait_seconds',
      help: 'Time that turns waited for a lane.',
      buckets: WAIT_BUCKETS_S,
      registers: [registry],
    });
    registerScheduler(registry, scheduler);
    new Gauge({
      name: 'agentrm_proxy_body_bytes',
      help: 'Bodies of requests that are held.',
      registers: [registry],
      collect() {
        this.set(bodyBytes());
      },
    });
    new Gauge({
      name: 'agentrm_core_resident_memory_bytes',
      help: 'Resident memory of the core process.',
      registers: [registry],
      collect() {
        this.set(process.memoryUsage.rss());
      },
    });
  }

  ended(provider: Provider, { outcome, waitedMs, usage }: TurnReport): void {
    this.#turns.add(1, outcome);
    this.#wait.observe(waitedMs / 1000);
    this.#inputTokens.add(usage.inputTokens ?? 0, provider);
    this.#outputTokens.add(usage.outputTokens ?? 0, provider);
  }

  passed(provider: Provider): void {
    this.#passed.add(1, provider);
  }

  rejected(reason: Rejection): void {
    this.#rejected.add(1, reason);
  }

  turns(outcome: TurnOutcome): number {
    return this.#turns.total(outcome);
  }

  rejections(reason: Rejection): number {
    return this.#rejected.total(reason);
  }

  /** The Prometheus text format, version 0.0.4. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }
}

function registerScheduler(registry: Registry, scheduler: TurnScheduler): void {
  const registers = [registry];
  const gauge = (name: string, help: string, labelNames: string[], collect: (this: Gauge) => void): void => {
    new Gauge({ name, help, labelNames, registers, collect });
  };
  const upstreams = () => scheduler.snapshot().upstreams;
  gauge(
    'agentrm_lanes',
    'Lanes that turns hold, and how many there are.',
    ['provider', 'state'],
    function () {
      for (const provider of PROVIDERS) {
        const lanes = upstreams().filter((upstream) => upstream.provider === provider);
        this.set({ provider, state: 'held' }, sum(lanes.map((upstream) => upstream.lanes.held)));
        this.set({ provider, state: 'limit' }, sum(lanes.map((upstream) => upstream.lanes.limit)));
      }
    },
  );
  gauge(
    'agentrm_queued_turns',
    'Turns that wait for a lane, by the level they have come to.',
    ['level'],
    function () {
      const levels = upstreams().flatMap((upstream) => upstream.levels);
      for (const level of TURN_CLASSES) {
        this.set({ level }, sum(levels.filter((each) => each.level === level).map(({ queued }) => queued)));
      }
    },
  );
  gauge(
    'agentrm_waiting_turns',
    'Queued turns that something else than lanes and limits keeps.',
    ['for'],
    function () {
      const { held, gated } = scheduler.snapshot();
      this.set({ for: 'memory' }, held);
      this.set({ for: 'agents' }, gated);
    },
  );
  gauge('agentrm_reserved', 'Reserved of rate limits by turns that run.', ['resource'], function () {
    const buckets = upstreams().flatMap((upstream) => upstream.buckets);
    for (const resource of RESOURCES) {
      this.set(
        { resource },
        sum(buckets.filter((each) => each.resource === resource).map(({ reserved }) => reserved)),
      );
    }
  });
  const windows = () => upstreams().flatMap(({ subscription }) => subscription?.windows ?? []);
  gauge(
    'agentrm_subscription_used_ratio',
    'Of what a window of a subscription holds, as its API told last; of several accounts the most.',
    ['window'],
    function () {
      this.reset();
      for (const window of SUBSCRIPTION_WINDOWS) {
        const used = windows().flatMap((each) => (each.window === window ? [each.used ?? 0] : []));
        if (used.length > 0) this.set({ window }, Math.max(...used));
      }
    },
  );
  gauge('agentrm_subscriptions', 'Accounts with a subscription, by how it stands.', ['status'], function () {
    const accounts = new Map(upstreams().map((each) => [`${each.provider} ${each.credential}`, each]));
    const statuses = [...accounts.values()].map(({ subscription }) => subscription?.status);
    for (const status of SUBSCRIPTION_STATUSES) {
      this.set({ status }, statuses.filter((each) => each === status).length);
    }
  });
  const counted = {
    retried: 'Attempts after the first one.',
    reaped: 'Turns that hung and were ended.',
    wouldReap: 'Turns that a dry run would have ended.',
    recovered: 'Turns that a retry completed.',
    aged: 'Turns that were served out of their turn because they waited too long.',
    demoted: 'Runs that went down a level.',
    rateLimited: 'Answers with 429.',
    overloaded: 'Answers with 529.',
    badHeaders: 'Rate limits of upstreams that cannot be.',
    evicted: 'Sessions and places that were forgotten for lack of room.',
    placesKept: 'Turns that found their place kept.',
    abandoned: 'Sessions whose runs were ended because nobody went on with them.',
    wouldAbandon: 'The same that a dry run would have ended.',
    held: "Turns that would have had a lane but for the host's memory.",
  } as const;
  for (const [field, help] of Object.entries(counted) as [keyof typeof counted, string][]) {
    new Counter({
      name: `agentrm_scheduler_${field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}_total`,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(scheduler.counters()[field]);
      },
    });
  }
  new Counter({
    name: 'agentrm_scheduler_refused_total',
    help: 'Turns that got no lane.',
    labelNames: ['reason'],
    registers,
    collect() {
      this.reset();
      const { refused } = scheduler.counters();
      for (const reason of REFUSAL_CODES) this.inc({ reason }, refused[reason]);
    },
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
