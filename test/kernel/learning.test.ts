// SPDX-License-Identifier: Apache-2.0
// What is learned of commands, what is advised, and what calls make of it.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Advice } from '../../daemon/control/types.ts';
import { type Ran, runCommand, TestDaemon, top, until, useMemory } from '../lib/daemon.ts';
import { lastRecord } from '../lib/record-of.ts';

const MIB = 2 ** 20;
const LEAST_RUNS = 3;

describe('what commands need', () => {
  const daemon = new TestDaemon({ config: `learning: { leastRuns: ${LEAST_RUNS} }\n` });
  const repository = `${daemon.dir}/app`;
  const advise = async (uid?: number): Promise<Advice[]> => {
    const args = ['--socket', daemon.socket, 'advise', '--json'];
    let ran: Ran | undefined;
    // Emulated on a busy machine, the thread of the database takes seconds to begin.
    await until(async () => {
      ran = await runCommand(`${top}dist/agentrm`, args, uid === undefined ? {} : { uid });
      return ran.code === 0;
    }, 'the database answers');
    return (ran?.stdout ?? '')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Advice);
  };
  const highOf = async (command: string) => {
    await daemon.run(command, { cwd: `${repository}/src` });
    return (await lastRecord(daemon)).memory.highBytes;
  };

  before(async () => {
    mkdirSync(`${repository}/.git`, { recursive: true });
    mkdirSync(`${repository}/src`);
    // A program of the repository, as npx finds them.
    writeFileSync(`${repository}/gradlew`, `#!/bin/sh\nexec ${useMemory(100)}\n`);
    chmodSync(`${repository}/gradlew`, 0o755);
    await daemon.start();
  });
  after(() => daemon.close());

  test('is advised once there are enough runs, from their peaks, to their user only', async () => {
    for (let run = 1; run <= LEAST_RUNS; run += 1) {
      assert.deepEqual(await advise(), []);
      const ran = await daemon.run(`cd .. && ./gradlew build --secret=a${run}`, { cwd: `${repository}/src` });
      assert.equal(ran.code, 0, ran.stderr);
    }
    const [advice, ...more] = await advise();
    assert.deepEqual(more, []);
    let peaks: number[] = [];
    await until(async () => {
      peaks = (await daemon.calls()).map(({ memory }) => memory.peakBytes).sort((a, b) => a - b);
      return peaks.length >= LEAST_RUNS;
    }, 'all records are read');
    assert.equal(peaks.length, LEAST_RUNS);
    assert.equal(advice?.repository, repository);
    assert.equal(advice.command, '*/gradlew build');
    assert.deepEqual([advice.runs, advice.cutShort], [LEAST_RUNS, 0]);
    assert.equal(advice.p50.bytes, peaks[1]);
    assert.equal(advice.max.bytes, peaks[2]);
    assert.equal(advice.intent, 'memory.high=128M');
    assert.deepEqual(await advise(12_345), []);
  });

  test('is no limit of later calls, unless the configuration says so; then not of one that says more', async () => {
    const usual = await highOf('true');
    assert.equal(await highOf('../gradlew build'), usual);
    writeFileSync(
      daemon.configPath,
      `stateDir: ${daemon.dir}/state\nlearning: { leastRuns: ${LEAST_RUNS}, useAsDefaults: true }\n`,
    );
    daemon.signal('SIGHUP');
    await daemon.event(({ kind }) => kind === 'reload');
    // The first call has what was learned read; nothing waits for that.
    await until(async () => (await highOf('../gradlew build')) === 128 * MIB, 'what was learned is in force');
    assert.equal(await highOf('true'), usual);
    assert.equal(await highOf('AGENTRM_INTENT=memory.high=77M ../gradlew build'), 77 * MIB);
    const { maxBytes } = (await lastRecord(daemon)).memory;
    assert.ok((maxBytes ?? Infinity) > 512 * MIB, `memory.max ${maxBytes}`);
  });
});
