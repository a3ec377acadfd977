// SPDX-License-Identifier: Apache-2.0
// Who gets the CPUs when two sessions want all of them: asked of cpu.stat, in shares of what both got.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { after, before, describe, test } from 'node:test';
import type { SessionRecord } from '../../daemon/control/types.ts';
import { agentrmBash, TestDaemon, until } from '../lib/daemon.ts';

const cores = availableParallelism();
/** CPU time that both together have to use before it is looked who had it: long against any time slice. */
const ENOUGH_US = 4_000_000;

/** With weight 10 against 100 it would be 0.91; idle leaves 0.997, less what a balancer needs to see it. */
const LEAST_SHARE = 0.93;

describe('two sessions that want all CPUs', () => {
  let daemon: TestDaemon;
  const children: ChildProcess[] = [];
  before(async () => {
    daemon = await new TestDaemon().start();
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await daemon.close();
  });

  /** Spins on every CPU, twice over. @returns its session's cgroup. */
  const burn = async (session: string, intent: string): Promise<string> => {
    const command = `for ((i = 0; i < ${2 * cores}; i++)); do perl -e '1 while 1' & done; echo; wait`;
    const child = spawn(agentrmBash, ['-c', command], {
      env: daemon.env({ AGENTRM_SESSION: session, AGENTRM_INTENT: intent }),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    await once(child.stdout as NodeJS.ReadableStream, 'data');
    return cgroupOf(session);
  };
  const cgroupOf = async (session: string): Promise<string> => {
    const { sessions } = await daemon.get<{ sessions: SessionRecord[] }>('/v1/sessions');
    return sessions.find(({ id }) => id === session)?.cgroup ?? assert.fail(`no session ${session}`);
  };
  const usedUs = (cgroup: string) =>
    Number(/^usage_usec (\d+)$/m.exec(readFileSync(`${cgroup}/cpu.stat`, 'utf8'))?.[1]);

  /** What the first gets of what both get from now on. */
  const shareOf = async (first: string, second: string): Promise<number> => {
    // Not while one of them still loads its programs, and leaves the CPUs to the other.
    const start = usedUs(first);
    await until(() => usedUs(first) - start > ENOUGH_US / 4, 'the first is under way');
    const before = [usedUs(first), usedUs(second)] as const;
    let got: readonly [number, number] = [0, 0];
    await until(() => {
      got = [usedUs(first) - before[0], usedUs(second) - before[1]];
      return got[0] + got[1] > ENOUGH_US;
    }, 'both together have used enough');
    return got[0] / (got[0] + got[1]);
  };
  const endAll = async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    await until(async () => (await daemon.liveCalls()).length === 0, 'they have ended');
  };

  test('two interactive ones share them', async () => {
    const share = await shareOf(await burn('a', ''), await burn('b', 'class=interactive'));
    assert.ok(share > 0.35 && share < 0.65, `${share}`);
    await endAll();
  });

  test('a subagent gets half of what a user gets', async () => {
    const share = await shareOf(await burn('user', ''), await burn('helper', 'class=subagent'));
    assert.ok(share > 0.55 && share < 0.8, `${share}`);
    await endAll();
  });

  test('background gets what is left, and all of it when nobody else is there', async () => {
    const background = await burn('burner', 'class=background');
    assert.equal(readFileSync(`${background}/cpu.idle`, 'utf8'), '1\n');
    const alone = usedUs(background);
    await until(() => usedUs(background) - alone > ENOUGH_US, 'it runs as if there were no classes');
    const share = await shareOf(await burn('user', ''), background);
    assert.ok(share > LEAST_SHARE, `${share}`);
    // It is not stopped, only last.
    const last = usedUs(background);
    await until(() => usedUs(background) > last, 'it goes on');
    await endAll();
  });

  test('a session is background again when its interactive call has ended', async () => {
    const background = await burn('mixed', 'class=background');
    const ran = await daemon.run('cat /proc/self/cgroup', { env: { AGENTRM_SESSION: 'mixed' } });
    assert.match(ran.stdout, new RegExp(`/${background.split('/').at(-1)}/`));
    await until(() => readFileSync(`${background}/cpu.idle`, 'utf8') === '1\n', 'it is idle again');
    const share = await shareOf(await burn('user', ''), background);
    assert.ok(share > LEAST_SHARE, `${share}`);
    await endAll();
  });
});
