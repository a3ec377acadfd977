// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { configSchema } from '../../daemon/config/schema.ts';
import { decideFrozen, decideGiveBack } from '../../daemon/policy/decide.ts';
import { CHARGE_BYTES, type Lines, linesFor } from '../../daemon/policy/lines.ts';
import { type Pool, poolState } from '../../daemon/policy/pool.ts';

const MIB = 2 ** 20;
const TICK_MS = 100;
const settings = configSchema(() => undefined).parse({});

/** What a simulated command wants to hold at each step of its work, and what it declared. */
interface Program {
  readonly wantsBytes: readonly number[];
  readonly highBytes: number;
  readonly maxBytes: number;
}

interface Running {
  readonly program: Program;
  step: number;
  usageBytes: number;
  lines: Lines;
  frozenSinceMs: number | undefined;
  frozenMs: number;
  lastPressedMs: number;
  end: 'done' | 'oom' | 'killed' | undefined;
}

interface Host {
  readonly totalBytes: number;
  readonly keepBytes: number;
}

/**
 * A host on which memory is all that matters: a call does one step a tick, or grows to its freeze line
 * and is frozen there, like the kernel would. The decisions are the real ones.
 */
function simulate(programs: readonly Program[], { totalBytes, keepBytes }: Host) {
  const percent = settings.enforcement.freezeLinePercent;
  const calls = programs.map(
    (program): Running => ({
      program,
      step: 0,
      usageBytes: 0,
      lines: linesFor({
        highBytes: program.highBytes,
        declaredMaxBytes: program.maxBytes,
        freezeLinePercent: percent,
      }),
      frozenSinceMs: undefined,
      frozenMs: 0,
      lastPressedMs: 0,
      end: undefined,
    }),
  );
  const live = () => calls.filter((call) => call.end === undefined);
  const used = () => live().reduce((sum, call) => sum + call.usageBytes, 0);
  const pool = (): Pool =>
    poolState(
      { memAvailableBytes: totalBytes - used() },
      live().map(({ usageBytes, lines, program }) => ({
        usageBytes,
        highBytes: lines.memoryHighBytes,
        freezeLineBytes: lines.freezeLineBytes,
        declaredHighBytes: program.highBytes,
      })),
      { budgetBytes: totalBytes - keepBytes, keepAvailableBytes: keepBytes },
    );
  let peakBytes = 0;
  let nowMs = 0;
  for (; live().length > 0; nowMs += TICK_MS) {
    assert.ok(nowMs < 3_600_000, 'still running after an hour');
    let killPending = false;
    for (const call of live()) {
      const { program } = call;
      const held = {
        usageBytes: call.usageBytes,
        tasks: 1,
        highBytes: call.lines.memoryHighBytes,
        declaredMaxBytes: program.maxBytes,
      };
      if (call.frozenSinceMs === undefined) {
        const wanted = live().some((other) => other.frozenSinceMs !== undefined);
        const { lastPressedMs } = call;
        const lent = { ...held, grownBytes: 0, declaredHighBytes: program.highBytes, lastPressedMs, wanted };
        call.lines = decideGiveBack(lent, pool(), nowMs, settings) ?? call.lines;
        work(call, nowMs);
        // Frozen and decided about at once, as the event from the kernel makes it.
        if (call.frozenSinceMs === undefined) continue;
        held.usageBytes = call.usageBytes;
        held.highBytes = call.lines.memoryHighBytes;
      }
      const frozen = { ...held, frozenSinceMs: call.frozenSinceMs, killPending };
      const decision = decideFrozen(frozen, pool(), nowMs, settings);
      if (decision.action === 'lend') {
        call.lines = decision.lines;
        call.frozenMs += nowMs - call.frozenSinceMs;
        call.lastPressedMs = nowMs;
        call.frozenSinceMs = undefined;
      } else if (decision.action === 'kill') {
        call.end = 'killed';
        killPending = true;
      }
    }
    peakBytes = Math.max(peakBytes, used());
  }
  return { calls, peakBytes, endedMs: nowMs };
}

function work(call: Running, nowMs: number): void {
  const wantsBytes = call.program.wantsBytes[call.step] ?? 0;
  if (wantsBytes > call.program.maxBytes && call.lines.freezeLineBytes >= call.program.maxBytes) {
    call.end = 'oom';
  } else if (wantsBytes > call.lines.freezeLineBytes) {
    call.usageBytes = Math.max(call.usageBytes, call.lines.freezeLineBytes);
    call.frozenSinceMs = nowMs;
  } else {
    call.usageBytes = wantsBytes;
    call.step += 1;
    if (call.step >= call.program.wantsBytes.length) call.end = 'done';
  }
}

const program = (maxMib: number, highMib = 64): fc.Arbitrary<Program> =>
  fc
    .record({
      wantsMib: fc.array(fc.integer({ min: 1, max: maxMib }), { minLength: 1, maxLength: 60 }),
      highMib: fc.integer({ min: 1, max: highMib }),
      maxMib: fc.integer({ min: 64, max: 4096 }),
    })
    .map(({ wantsMib, highMib: high, maxMib: max }) => ({
      wantsBytes: wantsMib.map((mib) => mib * MIB),
      highBytes: high * MIB,
      maxBytes: max * MIB,
    }));

describe('the policy on a simulated host', () => {
  test('ends every call, and never takes what the host must keep', () => {
    const host = { totalBytes: 1024 * MIB, keepBytes: 64 * MIB };
    fc.assert(
      fc.property(fc.array(program(1500, 4), { minLength: 1, maxLength: 8 }), (programs) => {
        const { calls, peakBytes } = simulate(programs, host);
        for (const { end } of calls) assert.notEqual(end, undefined);
        // What a call declared it may use without asking; the charge of each is for rounding.
        const declared = programs.reduce((sum, { highBytes }) => sum + highBytes * 1.02 + CHARGE_BYTES, 0);
        assert.ok(peakBytes <= host.totalBytes - host.keepBytes + declared, `${peakBytes / MIB}`);
      }),
    );
  });

  test('is right about memory.max: whoever stays within it is not killed for it', () => {
    const host = { totalBytes: 64 * 1024 * MIB, keepBytes: 64 * MIB };
    fc.assert(
      fc.property(fc.array(program(1500), { minLength: 1, maxLength: 8 }), (programs) => {
        for (const { end, program: given } of simulate(programs, host).calls) {
          assert.equal(end, Math.max(...given.wantsBytes) > given.maxBytes ? 'oom' : 'done');
        }
      }),
    );
  });

  test('slows nobody while there is memory to spare', () => {
    const host = { totalBytes: 64 * 1024 * MIB, keepBytes: 64 * MIB };
    fc.assert(
      fc.property(fc.array(program(1500), { minLength: 1, maxLength: 8 }), (programs) => {
        for (const { frozenMs } of simulate(programs, host).calls) assert.equal(frozenMs, 0);
      }),
    );
  });

  const mib = (...sizes: number[]) => sizes.map((size) => size * MIB);
  const times = (count: number, size: number) => Array<number>(count).fill(size);
  const small: Host = { totalBytes: 1024 * MIB, keepBytes: 64 * MIB };

  test('lets a call wait for the end of a burst beside which it does not fit, and finish', () => {
    const limits = { highBytes: 64 * MIB, maxBytes: 1024 * MIB };
    const first: Program = { ...limits, wantsBytes: mib(...times(30, 700), ...times(20, 30)) };
    const second: Program = { ...limits, wantsBytes: mib(...times(15, 30), ...times(20, 700)) };
    const { calls } = simulate([first, second], small);
    assert.deepEqual(
      calls.map(({ end }) => end),
      ['done', 'done'],
    );
    const [firstMs = 0, secondMs = 0] = calls.map(({ frozenMs }) => frozenMs);
    assert.equal(firstMs, 0);
    assert.ok(secondMs > 0 && secondMs <= 3_000, `${secondMs}`);
  });

  test('takes back at once what is lent and unused when another needs it', () => {
    const limits = { highBytes: 64 * MIB, maxBytes: 1024 * MIB };
    // A burst, after which a large loan is left idle; half a second later another call needs that room.
    const idle: Program = { ...limits, wantsBytes: mib(800, ...times(100, 20)) };
    const late: Program = { ...limits, wantsBytes: mib(...times(15, 20), 800) };
    const { calls } = simulate([idle, late], small);
    for (const { end, frozenMs } of calls) {
      assert.equal(end, 'done');
      assert.ok(frozenMs <= 2 * TICK_MS, `${frozenMs}`);
    }
  });

  test('keeps one of two calls that grow together and do not fit, and says so of the other in time', () => {
    const both: Program = { highBytes: 64 * MIB, maxBytes: 1024 * MIB, wantsBytes: mib(...times(20, 700)) };
    const { calls, endedMs } = simulate([both, both], small);
    assert.deepEqual(calls.map(({ end }) => end).sort(), ['done', 'killed']);
    assert.ok(endedMs <= settings.enforcement.freezeDeadlineMs + 10_000, `${endedMs}`);
  });
});
