// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configSchema } from '../../daemon/config/schema.ts';
import {
  byPrecedence,
  chargeLineBytes,
  type Grant,
  lowestLine,
  poolLines,
} from '../../daemon/policy/pool-lines.ts';
import {
  awakeBytes,
  decideShortage,
  isCornered,
  isExhausted,
  nearShortage,
} from '../../daemon/policy/shortage.ts';
import type { PoolMember, PoolUse } from '../../daemon/policy/shortage-types.ts';

const MIB = 2 ** 20;
const BUDGET = 1000 * MIB;
const NOW = 1_000_000;
const settings = configSchema(() => undefined).parse({}).pool.shortage;

interface Named extends PoolMember {
  readonly name: string;
}

function member(name: string, fields: Partial<PoolMember> = {}): Named {
  return {
    name,
    class: 'background',
    leftover: false,
    startedAtMs: 0,
    wantsBytes: 100 * MIB,
    risenBytes: 4 * MIB,
    grant: undefined,
    guarantee: undefined,
    grownBytes: MIB,
    grewAtMs: NOW,
    freeableBytes: 100 * MIB,
    frozenSinceMs: undefined,
    patience: { ms: 100, tries: 0, stuckSinceMs: NOW },
    held: false,
    passUntilMs: 0,
    blocksOthers: false,
    killed: false,
    dying: false,
    ...fields,
  };
}

const useOf = (usedMiB: number): PoolUse => ({
  usedBytes: usedMiB * MIB,
  budgetBytes: BUDGET,
  overBytes: 0,
  hostRoomBytes: 0,
  exhaustedSinceMs: undefined,
  stopsAtCharge: true,
  cornered: false,
});

function decide(members: readonly Named[], usedMiB: number, use: Partial<PoolUse> = {}): string[] {
  return decideShortage(members, { ...useOf(usedMiB), ...use }, NOW, settings).map((decided) => {
    const granted =
      decided.action === 'thaw' && decided.grant.kind !== 'relaxed' ? ` ${decided.grant.kind}` : '';
    return `${decided.action} ${decided.member.name}${granted}`;
  });
}

const user = member('user', { class: 'interactive', startedAtMs: 300 });
const helper = member('helper', { class: 'subagent', startedAtMs: 200 });
const old = member('old', { startedAtMs: 100 });
const young = member('young', { startedAtMs: 200 });
const frozen = (one: Named, forMs: number, patienceMs = Infinity): Named => ({
  ...one,
  grownBytes: 0,
  frozenSinceMs: NOW - forMs,
  wantsBytes: Infinity,
  risenBytes: Infinity,
  patience: { ms: patienceMs, tries: 1, stuckSinceMs: NOW - forMs },
});
const still = (one: Named, wantsBytes = 0): Named => ({ ...one, grownBytes: 0, risenBytes: 0, wantsBytes });

const linesOf = (members: readonly Named[], usedMiB = 900) =>
  poolLines(members, { ...useOf(usedMiB), overBytes: 5 * MIB }, settings);

describe('who comes before whom', () => {
  test('by class, then by age; what is left over last', () => {
    const left = member('left', { class: 'interactive', leftover: true, startedAtMs: 1 });
    const order = [left, young, old, helper, user].sort(byPrecedence).map(({ name }) => name);
    assert.deepEqual(order, ['user', 'helper', 'old', 'young', 'left']);
  });

  test('each has its line: the first the budget, the others by class, all but the first of each class sooner, nobody later than one before it', () => {
    const second = member('second', { class: 'interactive', startedAtMs: 400 });
    const third = member('third', { class: 'interactive', startedAtMs: 500 });
    const left = member('left', { leftover: true, startedAtMs: 1 });
    const lines = linesOf([left, young, third, old, helper, second, user]);
    const mib = (one: Named) => (lines.get(one)?.bytes ?? 0) / MIB;
    assert.deepEqual([user, second, third, helper, old, young, left].map(mib), [
      Infinity,
      990,
      960,
      960,
      960,
      940,
      940,
    ]);
    assert.equal(lowestLine(BUDGET, settings), 940 * MIB);
    assert.deepEqual(linesOf([old]).get(old)?.bytes, Infinity);
    assert.equal(linesOf([]).size, 0);
    // On a tiny pool a step must still hold what a few tasks have under way.
    assert.equal(lowestLine(64 * MIB, settings), 40 * MIB);
  });

  test('granted, no more is kept free than those before it have taken of late, but a step', () => {
    const relaxed = (...members: Named[]) =>
      [...linesOf(members).values()].slice(1).map(({ relaxedBytes }) => relaxedBytes / MIB);
    assert.deepEqual(relaxed(still(user), old, young), [990, 940]);
    // The first of a class is not stopped by those behind it.
    assert.deepEqual(relaxed(still(user), still(old), young), [990, 980]);
    assert.deepEqual(relaxed(still(user, 10 * MIB), old, young), [990, 940]);
    assert.deepEqual(relaxed(still(user, 10 * MIB + 1), old, young), [980, 940]);
    assert.deepEqual(relaxed(still(user, 6 * MIB), still(helper, 5 * MIB), old), [990, 980]);
    assert.deepEqual(relaxed(still(user, 500 * MIB), old), [970]);
    // Who is frozen wants more.
    assert.deepEqual(relaxed(still(user), frozen(old, 5000), young), [990, 940]);
  });

  test('a line is what was granted, and never less than without', () => {
    const line = (grant: Grant | undefined, first: Named, usedMiB = 975) => {
      const one = { ...old, grant };
      return (linesOf([first, one], usedMiB).get(one)?.bytes ?? 0) / MIB;
    };
    assert.deepEqual([line(undefined, still(user)), line({ kind: 'relaxed' }, still(user))], [970, 990]);
    // The rest is also what one may have beyond the budget.
    assert.deepEqual([line({ kind: 'rest' }, still(user)), line({ kind: 'rest' }, user)], [1005, 970]);
    const grown = (mib: number) => ({ kind: 'try', growBytes: mib * MIB }) as const;
    assert.deepEqual([line(grown(2), user), line(grown(0), user), line(grown(-1), user)], [977, 970, 970]);
    assert.equal(line(grown(2), user, 900), 970);
  });

  test('the kernel stops at its line who grows, not who holds still', () => {
    const stops = (one: Named, usedMiB: number, beforeMiB = 0) => {
      const line = linesOf([user, one], usedMiB).get(one);
      assert.ok(line !== undefined);
      return chargeLineBytes(one, line, usedMiB * MIB, beforeMiB * MIB) / MIB;
    };
    assert.deepEqual([stops(old, 900), stops(old, 975)], [970, 970]);
    // It may take a batch of pages, wherever the others have come to.
    assert.deepEqual([stops(still(old), 900), stops(still(old), 975)], [970, 979]);
    const before = [976, 977, 979, 980].map((beforeMiB) => stops(still(old), 975, beforeMiB));
    assert.deepEqual(before, [979, 977, 979, 979], 'told anew only if it has to be');
    assert.deepEqual([stops(still(old, MIB - 1), 975), stops(still(old, MIB), 975)], [979, 970]);
    const slow = (risenBytes: number) => ({ ...still(old), risenBytes });
    assert.deepEqual(
      [stops(slow(MIB - 1), 975), stops(slow(MIB), 975), stops(slow(Infinity), 975)],
      [979, 970, 970],
    );
    const tried = { ...still(old), grant: { kind: 'try', growBytes: 0 } as const };
    assert.deepEqual([stops(tried, 975), stops(frozen(old, 5000), 975)], [970, 970]);
    const first = linesOf([user]).get(user);
    assert.ok(first !== undefined);
    assert.equal(chargeLineBytes(user, first, 975 * MIB, 0), Infinity);
  });

  test('nobody sleeps within the budget', () => {
    // The kernel's penalty reaches 10 ms, which it does not skip, 1.25 % over memory.high.
    assert.ok(awakeBytes(BUDGET) * 1.0125 > BUDGET && awakeBytes(BUDGET) < BUDGET);
  });

  test('a pool with memory to spare is not looked at often', () => {
    assert.equal(nearShortage({ usedBytes: 880 * MIB, budgetBytes: BUDGET }, settings), false);
    assert.equal(nearShortage({ usedBytes: 881 * MIB, budgetBytes: BUDGET }, settings), true);
  });
});

describe('making room', () => {
  test('with memory to spare nobody is slowed', () => {
    assert.deepEqual(decide([user, helper, old, young], 940), []);
  });

  test('the last in order that grows is frozen first, one at a time', () => {
    assert.deepEqual(decide([user, helper, old, young], 941), ['freeze young']);
    assert.deepEqual(decide([user, helper, old, frozen(young, 10)], 970), []);
    assert.deepEqual(decide([user, helper, old, frozen(young, 10)], 971), ['freeze old']);
    assert.deepEqual(decide([user, helper, frozen(old, 10), frozen(young, 10)], 980), []);
    assert.deepEqual(decide([user, helper, frozen(old, 10), frozen(young, 10)], 981), ['freeze helper']);
  });

  test('close to the budget, all that grow but the first', () => {
    assert.deepEqual(decide([user, helper, old, young], 991), [
      'freeze young',
      'freeze old',
      'freeze helper',
    ]);
  });

  test('the first is never frozen, whatever its class', () => {
    assert.deepEqual(decide([user], 999), []);
    assert.deepEqual(decide([old], 1200), []);
  });

  test('who grows slowly grows too, if it goes on', () => {
    const slow = (grownBytes: number, risenBytes: number) => ({ ...old, grownBytes, risenBytes });
    const decided = (one: Named) => decide([user, one], 980);
    assert.deepEqual(decided(slow(MIB / 2, MIB - 1)), [], 'a batch of pages on each of two CPUs');
    assert.deepEqual(decided(slow(MIB / 2 + 1, 0)), ['freeze old']);
    assert.deepEqual(decided(slow(MIB / 4, MIB)), ['freeze old']);
    assert.deepEqual(decided(slow(0, 4 * MIB)), []);
  });

  test('a call that does not grow is left alone, and so are those that cannot grow', () => {
    const still = { ...young, grownBytes: 200 * 1024, risenBytes: 0 };
    const held = { ...old, held: true };
    const dying = { ...helper, killed: true };
    const passing = { ...member('passing', { startedAtMs: 400 }), passUntilMs: NOW + 1 };
    assert.deepEqual(decide([user, still, held, dying, passing], 999), []);
    assert.deepEqual(decide([user, { ...passing, passUntilMs: NOW }], 999), ['freeze passing']);
  });
});

describe('letting go on', () => {
  test('once there is room below its line, the first in order first, one at a time', () => {
    const both = [user, frozen(old, 400), frozen(young, 400)];
    assert.deepEqual(decide(both, 961), []);
    assert.deepEqual(decide(both, 960), ['thaw old']);
    assert.deepEqual(decide([user, old, frozen(young, 400)], 931), []);
    assert.deepEqual(decide([user, old, frozen(young, 400)], 930), ['thaw young']);
  });

  test('two that have stopped each other half-way do not wait for one that holds still', () => {
    const stopped = [frozen(old, 200), frozen(young, 200)];
    assert.deepEqual(decide([user, ...stopped], 980), []);
    assert.deepEqual(decide([still(user), ...stopped], 980), ['thaw old']);
    assert.deepEqual(decide([still(user), ...stopped], 981), []);
    // The other has its turn when the first of them holds still or gives something back.
    assert.deepEqual(decide([still(user), old, frozen(young, 200)], 970), []);
    assert.deepEqual(decide([still(user), still(old), frozen(young, 200)], 970), ['thaw young']);
    assert.deepEqual(decide([still(user), old, frozen(young, 200)], 930), ['thaw young']);
  });

  test('each is tried when its patience is over: it may not grow any more', () => {
    assert.deepEqual(decide([user, frozen(old, 199, 200), frozen(young, 199, 200)], 995), []);
    assert.deepEqual(decide([user, frozen(old, 200, 400), frozen(young, 200, 200)], 995), ['thaw young try']);
    assert.deepEqual(decide([user, frozen(old, 200, 200), frozen(young, 200, 200)], 995), ['thaw old try']);
    assert.deepEqual(decide([user, frozen(old, 200, 200)], 995, { stopsAtCharge: false }), []);
    // What a try may cost is not there.
    assert.deepEqual(decide([user, frozen(old, 200, 200)], 996), []);
  });

  test('a try costs less each time, and nothing of the last half step', () => {
    const growMiB = (patienceMs: number, usedMiB: number) => {
      const members = [user, frozen(old, patienceMs, patienceMs)];
      const [action] = decideShortage(members, useOf(usedMiB), NOW, settings);
      assert.ok(action?.action === 'thaw' && action.grant.kind === 'try');
      return action.grant.growBytes / MIB;
    };
    assert.deepEqual([growMiB(100, 985), growMiB(200, 985), growMiB(400, 985)], [2.5, 1.25, 0.625]);
    assert.deepEqual([growMiB(100, 994), growMiB(100, 995)], [1, 0]);
  });

  test('nobody takes what is left before all were tried, nor at once while one goes on after it was', () => {
    const untried = { ...frozen(young, 50), patience: { ms: 100, tries: 0, stuckSinceMs: NOW - 50 } };
    const tried = frozen(young, 50);
    assert.deepEqual(decide([still(user), frozen(old, 400), untried], 980), []);
    assert.deepEqual(decide([still(user), frozen(old, 400), tried], 980), ['thaw old']);
    const trying = { ...still(young), grant: { kind: 'try', growBytes: 0 } } as const;
    assert.deepEqual(decide([still(user), frozen(old, 1999), trying], 980), []);
    assert.deepEqual(decide([still(user), frozen(old, 2000), trying], 980), ['thaw old']);
    // There is room anyway.
    assert.deepEqual(decide([still(user), frozen(old, 400), untried, trying], 960), ['thaw old']);
    // Where nobody can be tried there is nothing to wait for.
    assert.deepEqual(decide([still(user), frozen(old, 400), untried], 980, { stopsAtCharge: false }), [
      'thaw old',
    ]);
  });

  test('after that the first of those that are stuck gets the rest, if those before it take little', () => {
    assert.deepEqual(decide([still(user), frozen(old, 499), frozen(young, 600)], 998), []);
    assert.deepEqual(decide([still(user), frozen(old, 500), frozen(young, 600)], 998), ['thaw old rest']);
    const wanted = { exhaustedSinceMs: NOW };
    assert.deepEqual(decide([still(user), frozen(old, 500), frozen(young, 600)], 998, wanted), []);
    assert.deepEqual(decide([still(user), frozen(old, 500)], 999.5), []);
    // Beyond where anybody can be tried there is nothing to wait for.
    const untried = { ...frozen(old, 500), patience: { ms: 500, tries: 0, stuckSinceMs: NOW - 500 } };
    assert.deepEqual(decide([still(user), untried], 998), ['thaw old rest']);
    assert.deepEqual(decide([user, frozen(old, 500)], 998), []);
    // One that goes on may give something back.
    assert.deepEqual(decide([still(user), frozen(old, 9_999), still(young)], 998), []);
    assert.deepEqual(decide([still(user), frozen(old, 10_000), still(young)], 998), ['thaw old rest']);
  });

  test('no freeze is shorter than the least', () => {
    assert.deepEqual(decide([user, frozen(old, 99)], 500), []);
    assert.deepEqual(decide([user, frozen(old, 100)], 500), ['thaw old']);
  });

  test('a call that has become the first goes on at once', () => {
    assert.deepEqual(decide([frozen(old, 1), frozen(young, 1)], 999), ['thaw old']);
  });

  test('who holds a lock that others wait for goes on at once', () => {
    const locked = { ...frozen(young, 1), blocksOthers: true };
    assert.deepEqual(decide([user, frozen(old, 5000), locked], 999), ['pass young']);
  });

  test('after a while it takes its turn with another of its class', () => {
    const waiting = frozen(young, 10_000);
    const room = { hostRoomBytes: MIB };
    assert.deepEqual(decide([user, helper, old, waiting], 955, room), ['pass young', 'freeze old']);
    assert.deepEqual(decide([user, helper, old, waiting], 955, { hostRoomBytes: MIB - 1 }), []);
    assert.deepEqual(decide([user, helper, old, frozen(young, 9_999)], 955, room), []);
    assert.deepEqual(decide([user, helper, { ...old, grownBytes: 0 }, waiting], 955, room), []);
    // Having had its turn, it is frozen again: not for the next one at once.
    const again = { ...waiting, frozenSinceMs: NOW - 99 };
    assert.deepEqual(decide([user, helper, old, again], 955, room), []);
  });

  test('or uses what the host has beyond the budget', () => {
    const waits = [user, still(old), frozen(young, 10_000)];
    assert.deepEqual(decide(waits, 955, { hostRoomBytes: 17 * MIB }), ['pass young']);
    // Any less, and the first in order would have none.
    assert.deepEqual(decide(waits, 955, { hostRoomBytes: 17 * MIB - 1 }), []);
  });

  test('how far it may grow: not through all that the host has, but as long as others wait for its lock', () => {
    const growMiB = (members: readonly Named[], hostRoomMiB: number) => {
      const use = { ...useOf(955), hostRoomBytes: hostRoomMiB * MIB };
      const [action] = decideShortage(members, use, NOW, settings);
      assert.ok(action?.action === 'pass');
      return action.growBytes / MIB;
    };
    const waiting = frozen(young, 10_000);
    assert.deepEqual([growMiB([user, old, waiting], 17), growMiB([user, old, waiting], 500)], [1, 484]);
    assert.equal(growMiB([user, old, waiting], 7), 7, 'another has stopped for it');
    assert.equal(growMiB([user, { ...frozen(old, 1), blocksOthers: true }], 10), Infinity);
  });

  test('the policy says until when it may pass', () => {
    const use = { ...useOf(965), hostRoomBytes: BUDGET };
    const [action] = decideShortage([user, helper, frozen(old, 10_000)], use, NOW, settings);
    assert.ok(action?.action === 'pass');
    assert.equal(action.untilMs, NOW + settings.passMs);
    assert.match(action.reason, /^frozen for 10 s, over the budget$/);
  });
});

describe('a session within its guarantee', () => {
  const within = { bytes: 64 * MIB, leftBytes: 40 * MIB };
  const own = (one: Named): Named => ({ ...one, guarantee: within });
  const beyond = (one: Named): Named => ({ ...one, guarantee: { ...within, leftBytes: 0 } });

  test('is not frozen for what others have borrowed, up to the last step of the budget', () => {
    assert.deepEqual(decide([user, helper, old, own(young)], 961), []);
    assert.deepEqual(decide([user, helper, old, own(young)], 971), ['freeze old']);
    assert.deepEqual(decide([user, helper, old, beyond(young)], 961), ['freeze young']);
    assert.deepEqual(decide([user, own(old)], 990), []);
    assert.deepEqual(decide([user, own(old)], 991), ['freeze old']);
    assert.deepEqual(decide([user, own(old)], 1010, { hostRoomBytes: 26 * MIB }), []);
  });

  test('does not stop for another to take its turn', () => {
    const room = { hostRoomBytes: MIB };
    const waiting = frozen(young, 10_000);
    assert.deepEqual(decide([user, helper, own(old), waiting], 955, room), []);
    const last = own(member('last', { startedAtMs: 300 }));
    assert.deepEqual(decide([user, helper, old, waiting, last], 955, room), ['pass young', 'freeze old']);
  });

  test('goes on at once, before others, if there is room for a step', () => {
    const stopped = (one: Named) => own({ ...frozen(one, 1), patience: { ...one.patience, tries: 0 } });
    assert.deepEqual(decide([user, frozen(old, 400), stopped(young)], 955), ['thaw young']);
    assert.deepEqual(decide([user, stopped(old), stopped(young)], 980), ['thaw old']);
    assert.deepEqual(decide([user, stopped(old)], 981), []);
    assert.deepEqual(decide([frozen(user, 1), stopped(young)], 955), ['thaw user']);
    assert.deepEqual(decide([user, beyond(stopped(old))], 955), []);
    const less = { ...stopped(old), guarantee: { ...within, leftBytes: 4 * MIB } };
    assert.deepEqual([decide([user, less], 986), decide([user, less], 987)], [['thaw old'], []]);
  });

  test('but that is not done again and again', () => {
    const again = (frozenMs: number) => own(frozen(old, frozenMs, 200));
    assert.deepEqual(decide([user, again(199)], 980), []);
    assert.deepEqual(decide([user, again(200)], 980), ['thaw old']);
  });

  test('is not stopped by the kernel either', () => {
    const stops = (one: Named, usedMiB: number) => {
      const line = linesOf([user, one], usedMiB).get(one);
      assert.ok(line !== undefined);
      return chargeLineBytes(one, line, usedMiB * MIB, 0) / MIB;
    };
    assert.deepEqual([stops(own(old), 975), stops(beyond(old), 975)], [990, 970]);
    // The tripwire stays where somebody looks who borrows.
    const [, line] = linesOf([user, own(old)]).values();
    assert.equal(line?.gradedBytes, 970 * MIB);
  });

  test('of the first in order counts among those that the pool has to keep', () => {
    const first = { ...user, guarantee: { bytes: 877 * MIB, leftBytes: 0 } };
    assert.deepEqual(decide([first, own(old)], 971), ['freeze old']);
    assert.deepEqual(
      decide([{ ...first, guarantee: { bytes: 876 * MIB, leftBytes: 0 } }, own(old)], 971),
      [],
    );
  });
});

describe('the last resort', () => {
  const exhausted = { exhaustedSinceMs: NOW - 3000 };

  test('the pool is exhausted if the first wants more and there is none', () => {
    const use = useOf(998);
    const is = (members: readonly Named[], changes = {}) => isExhausted(members, { ...use, ...changes }, NOW);
    assert.equal(is([user, frozen(old, 1)]), true);
    assert.equal(
      is([{ ...user, grownBytes: 0, grewAtMs: NOW - 2500 }, young]),
      true,
      'asleep in the throttle',
    );
    assert.equal(is([{ ...user, grownBytes: 0, grewAtMs: NOW - 2501 }, young]), false);
    assert.equal(is([user], { usedBytes: 997 * MIB }), false);
    assert.equal(is([{ ...user, held: true }, young], { usedBytes: 900 * MIB }), true, 'waits for a loan');
    assert.equal(is([{ ...user, held: true, killed: true }, young]), false);
    assert.equal(is([]), false);
  });

  test('kills in the lowest class who frees most, and only one at a time', () => {
    const small = frozen(member('small', { freeableBytes: 10 * MIB, startedAtMs: 500 }), 50);
    const large = frozen(member('large', { freeableBytes: 300 * MIB }), 50);
    const other = frozen({ ...helper, freeableBytes: 900 * MIB }, 50);
    assert.deepEqual(decide([user, other, small, large], 995, exhausted), ['kill large']);
    const killed = { ...large, killed: true };
    assert.deepEqual(decide([user, other, small, { ...killed, dying: true }], 995, exhausted), []);
    // One that does not die must not keep all others waiting.
    assert.deepEqual(decide([user, other, small, killed], 995, exhausted), ['kill small']);
    const stuck = { ...killed, patience: { ...killed.patience, stuckSinceMs: NOW - 60_000 } };
    assert.deepEqual(decide([still(user), stuck], 1000), []);
  });

  test('at once where a limit on all calls is near', () => {
    const near = { exhaustedSinceMs: NOW, cornered: true };
    assert.deepEqual(decide([user, frozen(old, 50)], 995, near), ['kill old']);
    assert.deepEqual(decide([user, frozen(old, 50)], 995, { cornered: true }), []);
  });

  test('a limit is near by what is taken now, not by the burst that used the pool up', () => {
    const burst = (grownMiB: number) => [{ ...user, wantsBytes: 500 * MIB, grownBytes: grownMiB * MIB }, old];
    const near = (grownMiB: number, leftMiB: number, exhaustedMs: number) =>
      isCornered(burst(grownMiB), leftMiB * MIB, exhaustedMs, true);
    assert.deepEqual([near(20, 14, 0), near(20, 14, 99), near(20, 14, 100)], [false, false, true]);
    assert.deepEqual([near(7, 14, 100), near(7.5, 14, 100), near(20, 16, 100)], [false, true, false]);
    // A few batches of pages, or what four such looks take.
    assert.deepEqual([near(0, 1, 0), near(0, 0.9, 0), near(0, Infinity, 5000)], [false, true, false]);
    assert.deepEqual([near(0.5, 2, 0), near(0.5, 1.9, 0)], [false, true]);
    assert.deepEqual([near(20, 4, 0), near(20, 3.9, 0)], [false, true]);
    // Where nobody stops the others at the charge, they count.
    const others = [still(user), { ...old, grownBytes: 10 * MIB }];
    assert.deepEqual(
      [isCornered(others, 14 * MIB, 100, true), isCornered(others, 14 * MIB, 100, false)],
      [false, true],
    );
  });

  test('the first itself goes if it holds the most and nobody of a lower class has anything to free', () => {
    const leak = { ...user, startedAtMs: 100, freeableBytes: 700 * MIB };
    const other = frozen({ ...user, name: 'other', freeableBytes: 30 * MIB }, 50);
    const [action] = decideShortage([leak, other], { ...useOf(995), ...exhausted }, NOW, settings);
    assert.deepEqual(
      [action?.member.name, action?.reason],
      ['user', 'host memory short, and it holds the most, 700 MiB'],
    );
    assert.deepEqual(decide([leak, other, frozen(old, 50)], 995, exhausted), ['kill old']);
  });

  test('not before its time, nor who is alone, nor who frees nothing', () => {
    assert.deepEqual(decide([user, frozen(old, 50)], 995, { exhaustedSinceMs: NOW - 2999 }), []);
    assert.deepEqual(decide([user], 995, exhausted), []);
    const empty = frozen({ ...old, freeableBytes: 0 }, 50);
    assert.deepEqual(decide([{ ...user, freeableBytes: 0 }, empty], 995, exhausted), []);
    // Nor is anybody spared for it who comes before it.
    const [left, other] = [{ ...empty, leftover: true }, frozen(young, 50)];
    assert.deepEqual(decide([user, other, left], 995, exhausted), ['kill young']);
  });

  test('who was frozen to the deadline is killed if nothing else helps', () => {
    const [action] = decideShortage(
      [{ ...user, grownBytes: 0 }, frozen(old, 60_000)],
      useOf(990),
      NOW,
      settings,
    );
    assert.deepEqual([action?.action, action?.reason], ['kill', 'host memory short, frozen for 1 min']);
  });

  test('unless a lower class holds memory, however still', () => {
    const waits = frozen({ ...helper, name: 'waits' }, 60_000);
    const holds = still({ ...old, freeableBytes: 600 * MIB });
    assert.deepEqual(decide([still(user), waits, holds], 1000), ['kill old']);
    assert.deepEqual(decide([still(user), waits, { ...holds, class: 'subagent' }], 1000), ['kill waits']);
    assert.deepEqual(decide([still(user), waits, { ...holds, freeableBytes: 0 }], 1000), ['kill waits']);
  });
});

test('whatever the calls are like: the first is never frozen, nobody is killed alone or meets two things', () => {
  const anyMember = fc.record({
    class: fc.constantFrom('interactive' as const, 'subagent' as const, 'background' as const),
    leftover: fc.boolean(),
    startedAtMs: fc.nat(1000),
    grownBytes: fc.nat(4 * MIB),
    grewAtMs: fc.constant(NOW),
    guarantee: fc.constantFrom(
      undefined,
      { bytes: 64 * MIB, leftBytes: 0 },
      { bytes: 64 * MIB, leftBytes: 40 * MIB },
    ),
    risenBytes: fc.constantFrom(0, 2 * MIB, Infinity),
    wantsBytes: fc.constantFrom(0, 15 * MIB, Infinity),
    patience: fc.record({
      tries: fc.nat(2),
      ms: fc.integer({ min: 100, max: 2000 }),
      stuckSinceMs: fc.integer({ min: NOW - 70_000, max: NOW }),
    }),
    freeableBytes: fc.nat(400 * MIB),
    frozenSinceMs: fc.option(fc.integer({ min: NOW - 70_000, max: NOW }), { nil: undefined }),
    held: fc.boolean(),
    passUntilMs: fc.integer({ min: NOW - 10, max: NOW + 10 }),
    blocksOthers: fc.boolean(),
    killed: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(anyMember, { maxLength: 8 }),
      fc.integer({ min: 900, max: 1100 }),
      fc.option(fc.integer({ min: NOW - 5000, max: NOW }), { nil: undefined }),
      (fields, usedMiB, exhaustedSinceMs) => {
        const members = fields.map((one, index) =>
          // One cannot be frozen for two reasons.
          member(String(index), { ...one, held: one.held && one.frozenSinceMs === undefined }),
        );
        const use = { ...useOf(usedMiB), exhaustedSinceMs };
        const actions = decideShortage(members, use, NOW, settings);
        const [first] = [...members].sort(byPrecedence);
        for (const { action, member: subject } of actions) {
          if (action === 'freeze') assert.notEqual(subject, first);
          if (action === 'kill') assert.ok(members.length > 1);
          if (action === 'freeze') assert.ok(subject.frozenSinceMs === undefined && !subject.held);
          if (action === 'thaw' || action === 'pass') assert.ok(subject.frozenSinceMs !== undefined);
          assert.equal(subject.killed, false);
        }
        assert.equal(new Set(actions.map((action) => action.member)).size, actions.length);
      },
    ),
  );
});
