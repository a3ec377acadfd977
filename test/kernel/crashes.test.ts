// SPDX-License-Identifier: Apache-2.0
// A daemon that is killed at any moment while calls are frozen for others, with its guard or before it: nothing stands
// still for longer than 3 s.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cgroupOf, leftIn } from '../lib/call-cgroups.ts';
import { TestDaemon, top, until, useMemory } from '../lib/daemon.ts';
import { Holder } from '../lib/holder.ts';
import { recordOf } from '../lib/record-of.ts';

const BUDGET = 'pool: { budget: 160M }\nadmission: { wait: 10ms }\n';

/** What an administrator has beside the daemon's own guard: agentrm-guard.service. */
function unitGuard(daemon: TestDaemon): ChildProcess {
  const args = ['--cgroup', daemon.cgroup, '--heartbeat', `${dirname(daemon.socket)}/heartbeat`];
  return spawn(`${top}dist/agentrm-guard`, args, { stdio: 'ignore' });
}

/** @returns its pid; undefined: it has none just now. */
function guardOf(daemon: TestDaemon): number | undefined {
  const children = readFileSync(`/proc/${daemon.pid}/task/${daemon.pid}/children`, 'utf8').trim().split(' ');
  const guard = children.find((pid) =>
    readFileSync(`/proc/${pid}/stat`, 'utf8').match(/\(agentrm-guard\) [^ZX]/),
  );
  return guard === undefined ? undefined : Number(guard);
}

function killGuard(daemon: TestDaemon): number {
  const guard = guardOf(daemon) ?? assert.fail('no guard');
  process.kill(guard, 'SIGKILL');
  return guard;
}

/** How long calls and their processes stand still; to be asked again and again. */
class Stillness {
  readonly #since = new Map<string, number>();
  #last = performance.now();
  /** The longest, and by how much this process itself came late meanwhile: it may have begun or ended in between. */
  longestMs = 0;
  lateMs = 0;

  /** @returns how many stand still now */
  async look(daemon: TestDaemon): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const now = performance.now();
    this.lateMs = Math.max(this.lateMs, now - this.#last - 20);
    this.#last = now;
    const still = new Set(leftIn(daemon).flatMap((id) => stillIn(cgroupOf(daemon, id))));
    for (const each of this.#since.keys()) if (!still.has(each)) this.#since.delete(each);
    for (const each of still) {
      const since = this.#since.get(each) ?? now;
      this.#since.set(each, since);
      this.longestMs = Math.max(this.longestMs, now - since);
    }
    return still.size;
  }
}

/** The cgroup if it is frozen, and processes in it that are stopped. */
function stillIn(path: string): string[] {
  try {
    const frozen = readFileSync(`${path}/cgroup.freeze`, 'utf8') === '1\n' ? [path] : [];
    const stopped = readFileSync(`${path}/cgroup.procs`, 'utf8')
      .split('\n')
      .filter((pid) => pid !== '' && /\) T/.test(readFileSync(`/proc/${pid}/stat`, 'utf8')));
    return [...frozen, ...stopped];
  } catch {
    return []; // it ended while it was looked at
  }
}

for (const mode of ['bpf', 'user'] as const) {
  describe(`a daemon that is killed while calls are frozen for others (${mode})`, () => {
    let daemon: TestDaemon;
    before(async () => {
      daemon = await new TestDaemon({ config: `${BUDGET}enforcement: { mode: ${mode} }\n` }).start();
    });
    after(() => daemon.close());

    /** One holds memory, others grow and are frozen; what makes the first let go, and all of them. */
    const shortage = async (round: number) => {
      const before = (await daemon.events()).at(-1)?.seq ?? 0;
      const holder = new Holder(daemon, `holder-${round}`, 'class=interactive memory.high=max', 100);
      await until(
        async () => (await daemon.liveCalls()).some(({ memory }) => memory.usedBytes > 100 * 2 ** 20),
        'it holds its memory',
      );
      const growing = [1, 2].map((number) =>
        daemon.run(useMemory(90), {
          env: {
            AGENTRM_SESSION: `growing-${round}-${number}`,
            AGENTRM_INTENT: 'class=background memory.high=max',
          },
        }),
      );
      await daemon.event(({ kind, seq }) => kind === 'freeze' && seq > before);
      return { letGo: () => holder.release(), calls: [holder.ran, ...growing] };
    };

    const nothingStandsStill = async (act: () => void | Promise<void>) => {
      const still = new Stillness();
      await still.look(daemon);
      await act();
      // What the kernel stops until it misses the daemon's beat is looked after too, for 5 s.
      const end = performance.now() + 6000;
      let left = 0;
      while (performance.now() < end || left > 0) {
        left = await still.look(daemon);
        assert.ok(still.longestMs <= 3000 + still.lateMs, JSON.stringify(still));
      }
    };

    const allEnd = async ({ letGo, calls }: Awaited<ReturnType<typeof shortage>>) => {
      letGo();
      for (const { code, signal, stderr } of await Promise.all(calls))
        assert.deepEqual([code, signal], [0, null], stderr);
    };

    // At a moment that is as good as any; test/bench/soak.bench.ts has others.
    test('by its guard nothing stays frozen', async () => {
      const short = await shortage(0);
      await new Promise((resolve) => setTimeout(resolve, 130));
      await nothingStandsStill(() => daemon.crash());
      await daemon.start();
      await allEnd(short);
    });

    test('by the guard of the unit, when its own is killed first', async () => {
      const guard = unitGuard(daemon);
      try {
        const short = await shortage(10);
        await nothingStandsStill(async () => {
          killGuard(daemon);
          await daemon.crash();
        });
        await daemon.start();
        await allEnd(short);
      } finally {
        guard.kill('SIGKILL');
      }
    });

    test('with no guard left, by the next daemon, which knows how long it was', async () => {
      const short = await shortage(20);
      const isFrozen = (id: string) =>
        readFileSync(`${cgroupOf(daemon, id)}/cgroup.freeze`, 'utf8') === '1\n';
      // Calls take turns at going on: the daemon, stopped, lets none of them.
      const pid = daemon.pid ?? assert.fail('no daemon');
      let id = '';
      await until(() => {
        process.kill(pid, 'SIGSTOP');
        id = leftIn(daemon).find(isFrozen) ?? '';
        if (id === '') process.kill(pid, 'SIGCONT');
        return id !== '';
      }, 'one is frozen');
      killGuard(daemon);
      await daemon.crash();
      assert.ok(isFrozen(id));
      await daemon.start();
      await allEnd(short);
      const record = await recordOf(daemon, { id });
      assert.ok(record.memory.frozenMs > 0, JSON.stringify(record));
    });

    test('the guard alone is replaced', async () => {
      const killed = killGuard(daemon);
      await daemon.event(({ kind, error }) => kind === 'degraded' && /^the guard ended/.test(String(error)));
      await until(() => guardOf(daemon) !== undefined, 'there is another');
      assert.notEqual(guardOf(daemon), killed);
    });
  });
}
