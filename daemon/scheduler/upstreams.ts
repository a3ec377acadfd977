// SPDX-License-Identifier: Apache-2.0
import type { Conditions } from './conditions.ts';
import type { QueuedTurn, TurnState } from './live-turns.ts';
import type { DisciplineMaker } from './queue.ts';
import { RecentMap } from './recent-map.ts';
import { Subscription } from './subscription.ts';
import { Upstream, type UpstreamKey } from './upstream.ts';

export interface UpstreamsHost {
  /** The turn has its lane. */
  readonly grant: (state: TurnState, aged: boolean) => void;
  /** The turn would have a lane but for the host's memory. Told again as long as that is so. */
  readonly held: (state: TurnState) => void;
  readonly evicted: () => void;
  /** In place of our own order. */
  readonly discipline: DisciplineMaker | undefined;
}

/** All upstreams, each from the first turn that goes there on. Those of one account share its subscription. */
export class Upstreams {
  readonly #conditions: Readonly<Conditions>;
  readonly #host: UpstreamsHost;
  readonly #upstreams: RecentMap<string, Upstream>;

  constructor(conditions: Readonly<Conditions>, host: UpstreamsHost) {
    this.#conditions = conditions;
    this.#host = host;
    const { upstreams } = conditions.settings.tables;
    this.#upstreams = new RecentMap(upstreams, host.evicted, ({ turns }) => turns > 0);
  }

  /** The one that was used longest ago first. */
  values(): Upstream[] {
    return this.#upstreams.values();
  }

  /** The upstream of such turns; a new one if there is none. */
  of({ provider, credential, modelClass }: UpstreamKey): Upstream {
    const name = `${provider}\n${credential}\n${modelClass}`;
    const known = this.#upstreams.get(name);
    if (known !== undefined) return known;
    const { grant, held, evicted, discipline } = this.#host;
    const upstream = new Upstream(
      { provider, credential, modelClass },
      {
        clock: this.#conditions.clock,
        settings: () => this.#conditions.settings,
        pressure: () => this.#conditions.pressure,
        grant: (entry, aged) => grant((entry as QueuedTurn).state, aged),
        held: (entry) => held((entry as QueuedTurn).state),
        evicted,
        subscription: this.#subscriptionOf(provider, credential),
        ...(discipline === undefined ? {} : { discipline }),
      },
    );
    this.#upstreams.set(name, upstream);
    return upstream;
  }

  dispatch(): void {
    for (const upstream of this.values()) upstream.dispatch();
  }

  /** The one of the account's other upstreams, if it has any. */
  #subscriptionOf(provider: string, credential: string): Subscription {
    for (const { key, subscription } of this.values()) {
      if (key.provider === provider && key.credential === credential) return subscription;
    }
    return new Subscription();
  }
}
