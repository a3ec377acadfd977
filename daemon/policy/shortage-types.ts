// SPDX-License-Identifier: Apache-2.0
import type { Patience } from './patience.ts';
import {
  type Claimant,
  type Grant,
  type LineUse,
  type PoolLine,
  rises,
  type StepSettings,
} from './pool-lines.ts';

/* What is decided of a shortage (`shortage.ts`), and from what. */

export interface ShortageSettings extends StepSettings {
  /** A frozen call goes on once there is this much room below its line. */
  readonly roomPercent: number;
  /** No freeze is shorter: what it takes to hand a call to the freezer and back should be little beside it. */
  readonly leastFreezeMs: number;
  /** After this long others take their turn, or memory beyond the budget is used. */
  readonly rotateMs: number;
  /** How long a call may then go on. */
  readonly passMs: number;
  /** A call that is frozen for so long is killed, if nothing else helps. */
  readonly deadlineMs: number;
  /** How long the first in order may be held up by a pool that is used up before another is killed for it. */
  readonly lastResortMs: number;
}

/** A call as the pool sees it. */
export interface PoolMember extends Claimant {
  /** By how much its usage has grown since it was looked at last. */
  readonly grownBytes: number;
  /** When it was last seen to grow. */
  readonly grewAtMs: number;
  /** What a kill of it would free beyond what its session is guaranteed. */
  readonly freeableBytes: number;
  /** Since when it is frozen for the pool, if it is. */
  readonly frozenSinceMs: number | undefined;
  /** For how long it is to stay so before it is tried, and since when it has got nowhere (`patience.ts`). */
  readonly patience: Pick<Patience, 'ms' | 'tries' | 'stuckSinceMs'>;
  /** Frozen at a line of its own: it runs no more than one frozen for the pool does. */
  readonly held: boolean;
  /** It may go on until then, whoever else waits. */
  readonly passUntilMs: number;
  /** A task outside waits for a file lock that it holds. */
  readonly blocksOthers: boolean;
  readonly killed: boolean;
  /** It was killed, and what it holds is coming back. */
  readonly dying: boolean;
}

/** Used is what all calls hold, without page cache that the kernel can take back at once. */
export interface PoolUse extends LineUse {
  /** Since when the first in order has wanted to grow and the pool was used up, if it has. */
  readonly exhaustedSinceMs: number | undefined;
  /** The kernel stops at the next charge who is over its line. Else a call that is tried may grow until the next look. */
  readonly stopsAtCharge: boolean;
  /** A limit on all calls is so near that the kernel may kill at any moment, and not the last in order. */
  readonly cornered: boolean;
}

/** What one look finds. */
export interface Shortage<M extends PoolMember> {
  /** Live calls by precedence. */
  readonly order: readonly M[];
  readonly lines: ReadonlyMap<M, PoolLine>;
  readonly use: PoolUse;
  readonly nowMs: number;
  readonly settings: ShortageSettings;
}

export type ShortageAction<M extends PoolMember> =
  | { readonly action: 'freeze'; readonly member: M; readonly reason: string }
  | { readonly action: 'kill'; readonly member: M; readonly reason: string }
  | { readonly action: 'thaw'; readonly member: M; readonly grant: Grant; readonly reason: string }
  | {
      readonly action: 'pass';
      readonly member: M;
      readonly untilMs: number;
      readonly growBytes: number;
      readonly reason: string;
    };

/** What comes and goes where nothing grows: 64 pages are charged ahead (MEMCG_CHARGE_BATCH), on each CPU that a task is moved to. */
const NOISE_BYTES = 512 * 1024;

/** Whether it takes what others may need: it runs, has no leave to, and has grown since it was looked at last. */
export function grows(member: PoolMember, nowMs: number): boolean {
  if (isFrozen(member) || member.killed || nowMs < member.passUntilMs) return false;
  return member.grownBytes > NOISE_BYTES || (member.grownBytes > 0 && rises(member));
}

/** It does not run, whoever stopped it. */
export function isFrozen(member: PoolMember): boolean {
  return member.frozenSinceMs !== undefined || member.held;
}
