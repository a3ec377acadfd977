// SPDX-License-Identifier: Apache-2.0
// Ways in which a command can end, what is recorded of each, and the very words that its agent reads.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { CallRecord } from '../../daemon/control/types.ts';
import { type TestDaemon, until } from '../lib/daemon.ts';
import { type Ending, type Mode, plain } from './ending-lab.ts';
import { memory, NO_ROOM, short, waiting } from './endings-memory.ts';
import { leftoversKilled, others } from './endings-others.ts';
import { untold } from './endings-untold.ts';

/**
 * The table of endings, whoever runs the daemon.
 * @param daemon not started yet; closed at the end.
 * @param mode who enforces.
 * @param parts those for memory, in which kernels may differ, and all others.
 */
export function endingTests(
  daemon: TestDaemon,
  mode: Mode,
  parts: readonly ('memory' | 'others')[] = ['memory', 'others'],
): void {
  const write = (config: string) =>
    writeFileSync(daemon.configPath, `stateDir: ${daemon.dir}/state\nreport: { slow: 1ms }\n${config}`);
  const configure = async (config: string) => {
    const before = (await daemon.events()).at(-1)?.seq ?? 0;
    write(config);
    daemon.signal('SIGHUP');
    await daemon.event((event) => event.kind === 'reload' && event.seq > before);
  };

  before(async () => {
    write('ceiling: memory.max=256M\n');
    await daemon.start();
    assert.equal((await daemon.status()).backend.mode, mode);
  });
  after(() => daemon.close());

  // A query that the file does not answer in time has only the newest calls: all that were seen are remembered.
  const known = new Set<string>();
  const table = (endings: readonly Ending[]) => {
    for (const ending of endings) {
      const { what, end = 0, outcome = 'ok', line, unread, notUser, how = plain } = ending;
      if (mode === 'user' && notUser !== undefined) continue;
      test(what, async () => {
        for (const { id } of await daemon.calls()) known.add(id);
        const ran = await how(daemon, ending);
        const record = await newRecord(daemon, known);
        known.add(record.id);
        await killLeftovers(daemon, record);
        const said = ran.stderr.split('\n').filter((text) => text.startsWith('agentrm:'));
        const expected =
          line === undefined ? null : `agentrm: ${typeof line === 'string' ? line : line(record, mode)}`;
        assert.deepEqual(
          {
            end: record.signal ?? record.exitCode,
            outcome: record.outcome,
            recorded: record.report?.line ?? null,
            said,
          },
          { end, outcome, recorded: expected, said: expected === null || unread ? [] : [expected] },
          `${JSON.stringify(record)}\n${ran.stderr}`,
        );
        // The agent sees what it would have seen without the wrapper.
        if (!unread) assert.deepEqual(ran.signal ?? ran.code, end);
      });
    }
  };

  const memoryToo = parts.includes('memory');
  const othersToo = parts.includes('others');
  if (othersToo) table([...untold, ...others]);
  if (memoryToo) {
    table(memory);
    describe('on a host without room', () => {
      before(() => configure(NO_ROOM));
      table(short);
    });
    describe('on a host where calls wait', () => {
      before(() => configure(`${NO_ROOM}admission: { wait: 700ms, pressurePercent: 0 }\n`));
      table(waiting);
    });
  }
  if (othersToo) {
    describe('where nothing may stay', () => {
      before(() => configure('leftovers: kill\n'));
      table(leftoversKilled);
    });
  }
}

/** The record of the one call that is not among those. */
async function newRecord(daemon: TestDaemon, known: ReadonlySet<string>): Promise<CallRecord> {
  let found: CallRecord[] = [];
  await until(async () => {
    found = (await daemon.calls()).filter(({ id }) => !known.has(id));
    return found.length > 0;
  }, 'the call is recorded');
  assert.equal(found.length, 1, JSON.stringify(found));
  return found[0] as CallRecord;
}

/**
 * What an ending has left behind would have its part of the next one's pool. Only its own cgroup is killed: into one that
 * was below a killed one nothing can be forked any more (kernel-notes/placement.md).
 */
async function killLeftovers({ cgroup }: TestDaemon, { id, report }: CallRecord): Promise<void> {
  if (report === null || report.leftovers === 0 || !report.leftoversKept) return;
  const own = readdirSync(cgroup)
    .map((session) => `${cgroup}/${session}/${id}`)
    .find(existsSync);
  assert.ok(own !== undefined, `what ${id} has left behind is in its cgroup`);
  writeFileSync(`${own}/cgroup.kill`, '1');
  await until(() => !existsSync(own), 'nothing is left behind');
}
