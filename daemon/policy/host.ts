// SPDX-License-Identifier: Apache-2.0
import type { Intent } from '../toolcall/intent.ts';
import { floorToPage } from './lines.ts';
import type { PoolSettings } from './pool.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/**
 * What the kernel, the system's services and the agents themselves need beside the calls: the share that
 * Google Kubernetes Engine reserves on a node, by size. It fits here for the same reason, a host whose
 * purpose is other people's work: 1 GiB of 4, 2.6 of 16, 5.5 of 64.
 */
const RESERVE_TIERS: readonly (readonly [uptoBytes: number, share: number])[] = [
  [4 * GIB, 0.25],
  [8 * GIB, 0.2],
  [16 * GIB, 0.1],
  [128 * GIB, 0.06],
  [Number.POSITIVE_INFINITY, 0.02],
];

/**
 * Part of the reserve that must be available at any moment. The rest of it is there to be used by others,
 * so to insist on all of it would count their use twice.
 */
const KEPT_AVAILABLE_OF_RESERVE = 1 / 4;

/**
 * memory.high of a call that declares nothing: half of the pool. What calls want together is shared out by
 * their order (shortage.ts); this is for the one that nobody sized. At least 256 MiB, which half of 144 recorded agent sessions never reached in all; at most
 * 4 GiB, which none of them did. What needs more is lent it before it is slowed, while there is room.
 */
const HIGH_OF_POOL = 1 / 2;
const HIGH_LEAST_BYTES = 256 * MIB;
const HIGH_MOST_BYTES = 4 * GIB;
/** Even on a tiny host the pool keeps some room that is not one call's. */
const HIGH_OF_TINY_POOL = 0.9;

export interface HostDefaults {
  /** Not for calls. */
  readonly reserveBytes: number;
  /** For all calls together. */
  readonly budgetBytes: number;
  readonly keepAvailableBytes: number;
  /** memory.high of a call that declares nothing. */
  readonly memoryHighBytes: number;
}

/** What follows from the size of the host where the configuration says `auto`. */
export function hostDefaults({ memTotalBytes }: { readonly memTotalBytes: number }): HostDefaults {
  const reserveBytes = reserveOf(memTotalBytes);
  return derive(reserveBytes, memTotalBytes - reserveBytes);
}

/** The parts of the configuration that depend on the host. */
export interface HostConfig {
  readonly pool: {
    readonly reserveBytes: number | null;
    readonly budgetBytes: number | null;
    readonly keepAvailableBytes: number | null;
  };
  readonly defaults: Intent;
  readonly ceiling: Intent;
  readonly ceilings: readonly { readonly uid: number; readonly limits: Intent }[];
}

export interface HostSettings {
  readonly pool: PoolSettings;
  readonly reserveBytes: number;
  readonly defaults: Intent;
  /** memory.high of a call of which nobody says what it needs; undefined where `defaults` do. */
  readonly guessedHighBytes: number | undefined;
  /** The most that a call of this uid may have: its own entry, field by field, over the general one. */
  readonly ceilingFor: (uid: number) => Intent;
}

/** The configuration on a host of this size, with every `auto` filled in. */
export function hostSettings(config: HostConfig, host: { readonly memTotalBytes: number }): HostSettings {
  const { memTotalBytes } = host;
  const reserveBytes = Math.min(config.pool.reserveBytes ?? reserveOf(memTotalBytes), memTotalBytes);
  const wantedBytes = config.pool.budgetBytes ?? memTotalBytes - reserveBytes;
  // `max` is what the host has: lines are drawn in parts of it.
  const budgetBytes = wantedBytes === Infinity ? memTotalBytes : wantedBytes;
  const derived = derive(reserveBytes, budgetBytes);
  const { memoryHighBytes, memoryMaxBytes } = config.defaults;
  const sized = memoryHighBytes !== undefined || memoryMaxBytes !== undefined;
  // A call that may have the whole pool is stopped by the pool, in good order, before the host is.
  const general: Intent = { memoryMaxBytes: budgetBytes, ...config.ceiling };
  // The first entry of a user counts, so it goes in last.
  const entries = config.ceilings.toReversed();
  const byUid = new Map(entries.map(({ uid, limits }) => [uid, { ...general, ...limits }]));
  return {
    pool: {
      budgetBytes,
      keepAvailableBytes: config.pool.keepAvailableBytes ?? derived.keepAvailableBytes,
    },
    reserveBytes,
    defaults: config.defaults,
    guessedHighBytes: sized ? undefined : derived.memoryHighBytes,
    ceilingFor: (uid) => byUid.get(uid) ?? general,
  };
}

function reserveOf(memTotalBytes: number): number {
  let reserveBytes = 0;
  let fromBytes = 0;
  for (const [uptoBytes, share] of RESERVE_TIERS) {
    reserveBytes += share * Math.max(0, Math.min(memTotalBytes, uptoBytes) - fromBytes);
    fromBytes = uptoBytes;
  }
  return floorToPage(reserveBytes);
}

function derive(reserveBytes: number, budgetBytes: number): HostDefaults {
  const wanted = Math.min(HIGH_MOST_BYTES, Math.max(HIGH_LEAST_BYTES, budgetBytes * HIGH_OF_POOL));
  return {
    reserveBytes,
    budgetBytes,
    keepAvailableBytes: floorToPage(reserveBytes * KEPT_AVAILABLE_OF_RESERVE),
    memoryHighBytes: floorToPage(Math.min(wanted, budgetBytes * HIGH_OF_TINY_POOL)),
  };
}
