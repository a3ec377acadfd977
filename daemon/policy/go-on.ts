// SPDX-License-Identifier: Apache-2.0
import { formatMs } from '../units.ts';
import { LEAST_OVER_BYTES } from './pool.ts';
import { classOrder, type Grant, type PoolLine, stepBytes } from './pool-lines.ts';
import { grows, isFrozen, type PoolMember, type Shortage, type ShortageAction } from './shortage-types.ts';

/*
 * Who of those frozen for the pool goes on, and with what: into room that there is, for a try, in its turn, or with what
 * is left. One at a time: how much it takes is known at the next look.
 */

/** Who was tried in vain for so long gets what is left. */
const STUCK_MS = 500;

/** What is left is worth nothing below: a few tasks would not get on with it. */
const LEAST_REST_BYTES = 1024 * 1024;

/** Bursts of builds and tests last for one to three seconds (AgentCgroup's measurements). */
const BURST_MS = 2000;

/** What all of them are judged by at one look. */
interface Look<M extends PoolMember> extends Shortage<M> {
  /** Who runs behind the first in order. */
  readonly going: readonly M[];
  /** Who goes on needs so much. */
  readonly roomBytes: number;
  /** How much a try can be given; negative: nobody can be tried. */
  readonly triableBytes: number;
  /** One of those frozen is still to be tried. */
  readonly untried: boolean;
}

/** A call that is frozen for the pool. */
interface Stuck<M> {
  readonly member: M;
  readonly line: PoolLine;
  /** It comes before all calls, the running ones too. */
  readonly first: boolean;
  /** Another that is frozen comes before it. */
  readonly behind: boolean;
  readonly frozenMs: number;
  /** Since the first of the freezes between which it got nowhere. */
  readonly stuckMs: number;
}

/** Lets the first in order go on for which there is a reason; nobody if there is none. */
export function letGoOn<M extends PoolMember>(shortage: Shortage<M>): ShortageAction<M>[] {
  const { order, use, settings } = shortage;
  const all = stuckOf(shortage);
  const triableBytes = use.stopsAtCharge
    ? use.budgetBytes - stepBytes(use.budgetBytes, settings) / 2 - use.usedBytes
    : -1;
  const look: Look<M> = {
    ...shortage,
    going: order.slice(1).filter((member) => !isFrozen(member) && !member.killed),
    roomBytes: (use.budgetBytes * settings.roomPercent) / 100,
    triableBytes,
    untried: triableBytes >= 0 && all.some(({ member }) => member.patience.tries === 0),
  };
  // Nobody comes before the first of all.
  for (const stuck of all[0]?.first ? [] : all) {
    const actions = withinGuarantee(stuck, look);
    if (actions !== undefined) return actions;
  }
  for (const stuck of all) {
    const actions =
      forItsLock(stuck, look) ??
      asFirst(stuck) ??
      intoRoom(stuck, look) ??
      forATry(stuck, look) ??
      inItsTurn(stuck, look) ??
      withTheRest(stuck, look);
    if (actions !== undefined) return actions;
  }
  return [];
}

function stuckOf<M extends PoolMember>({ order, lines, nowMs }: Shortage<M>): Stuck<M>[] {
  const all: Stuck<M>[] = [];
  for (const member of order) {
    const line = lines.get(member);
    if (member.frozenSinceMs === undefined || member.killed || line === undefined) continue;
    all.push({
      member,
      line,
      first: member === order[0],
      behind: all.length > 0,
      frozenMs: nowMs - member.frozenSinceMs,
      stuckMs: nowMs - member.patience.stuckSinceMs,
    });
  }
  return all;
}

/** It has not borrowed what others need. At once, but for one that has only just been stopped again. */
function withinGuarantee<M extends PoolMember>({ member, line, frozenMs }: Stuck<M>, look: Look<M>) {
  const { tries, ms } = member.patience;
  const wantsBytes = Math.min(look.roomBytes, member.guarantee?.leftBytes ?? 0);
  if (look.use.usedBytes + wantsBytes > line.guaranteedBytes || (tries > 0 && frozenMs < ms)) return;
  return thaw(member, { kind: 'relaxed' }, 'its session is within its guarantee');
}

function forItsLock<M extends PoolMember>({ member }: Stuck<M>, look: Look<M>) {
  return member.blocksOthers ? pass(member, look, Infinity, 'another call waits for its lock') : undefined;
}

function asFirst<M extends PoolMember>({ member, first }: Stuck<M>) {
  return first ? thaw(member, { kind: 'relaxed' }, 'first in order') : undefined;
}

/** There is room below its line; or below what those before it leave, once all were tried and none goes on for a try. */
function intoRoom<M extends PoolMember>({ member, line, frozenMs, stuckMs }: Stuck<M>, look: Look<M>) {
  const { use, settings, untried, going, roomBytes } = look;
  if (frozenMs < settings.leastFreezeMs) return;
  const wantedBytes = use.usedBytes + roomBytes;
  const free = wantedBytes <= line.gradedBytes;
  // Before one of them takes what is left it is known who does not need it; and who goes on may give something back.
  const trying = going.some(({ grant }) => grant?.kind === 'try');
  const left = wantedBytes <= line.relaxedBytes && !untried && (!trying || stuckMs >= BURST_MS);
  return free || left ? thaw(member, { kind: 'relaxed' }, 'room in the pool') : undefined;
}

function forATry<M extends PoolMember>({ member, frozenMs }: Stuck<M>, look: Look<M>) {
  const { use, settings, triableBytes } = look;
  if (triableBytes < 0 || frozenMs < member.patience.ms) return;
  // Less each time, or all that is left would go to tries.
  const quarterBytes = stepBytes(use.budgetBytes, settings) / 4;
  const growBytes = Math.min(quarterBytes * (settings.leastFreezeMs / member.patience.ms), triableBytes);
  return thaw(member, { kind: 'try', growBytes }, 'it may not grow any more');
}

/** It has waited for long: it goes on over the budget if the host can bear it, or another of its class stops for it. */
function inItsTurn<M extends PoolMember>({ member, frozenMs, stuckMs }: Stuck<M>, look: Look<M>) {
  const { use, nowMs, settings, order, lines, roomBytes } = look;
  if (stuckMs < settings.rotateMs || frozenMs < settings.leastFreezeMs) return;
  const waited = `frozen for ${formatMs(stuckMs)}`;
  // Not all of it: the first in order would be short of memory, and somebody would have to die for that.
  const spareBytes = use.hostRoomBytes - Math.max(roomBytes, LEAST_OVER_BYTES);
  if (spareBytes >= LEAST_REST_BYTES) return pass(member, look, spareBytes, `${waited}, over the budget`);
  if (use.hostRoomBytes < LEAST_REST_BYTES) return;
  const others = order.slice(1).filter((one) => classOrder(one) === classOrder(member));
  const other = others.findLast(
    (one) => grows(one, nowMs) && use.usedBytes > (lines.get(one)?.guaranteedBytes ?? 0),
  );
  if (other === undefined) return;
  const freeze = { action: 'freeze', member: other, reason: 'others take their turn' } as const;
  return [...pass(member, look, use.hostRoomBytes, `${waited}, its turn`), freeze];
}

function withTheRest<M extends PoolMember>({ member, line, behind, stuckMs }: Stuck<M>, look: Look<M>) {
  const { use, settings, untried, going } = look;
  const due =
    stuckMs >= (going.length > 0 ? settings.rotateMs : STUCK_MS) && line.restBytes > line.relaxedBytes;
  // What the first in order wants is nobody else's rest.
  const left = use.exhaustedSinceMs === undefined && use.usedBytes + LEAST_REST_BYTES <= line.restBytes;
  return !behind && !untried && due && left
    ? thaw(member, { kind: 'rest' }, 'what is left of the pool')
    : undefined;
}

function thaw<M extends PoolMember>(member: M, grant: Grant, reason: string): ShortageAction<M>[] {
  return [{ action: 'thaw', member, grant, reason }];
}

function pass<M extends PoolMember>(
  member: M,
  { nowMs, settings }: Look<M>,
  growBytes: number,
  reason: string,
): ShortageAction<M>[] {
  return [{ action: 'pass', member, untilMs: nowMs + settings.passMs, growBytes, reason }];
}
