// SPDX-License-Identifier: Apache-2.0
// What agentrm-guard does for calls whose daemon dies or hangs at the worst moment.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { agentrmBash, TestDaemon, until } from '../lib/daemon.ts';

/**
 * Takes half of what it may have, prints its pid, waits for a line, and grows from there over its memory.high of 64 MiB
 * and its freeze line: in small steps, as a bulk system call would not see the stop before its end. What is left to go
 * takes a slow machine a fraction of the 2 s for which the kernel stops tasks without a beat.
 */
const growOverTheLine = `exec python3 -c "
import os, sys
def take(mib): return [bytearray(b'x') * 2 ** 18 for _ in range(mib * 4)]
held = take(32)
print(os.getpid(), flush=True)
sys.stdin.readline()
held += take(48)
print('grown', flush=True)
"`;

/** For what hangs if the guard does nothing. */
const timeout = 90_000;

/** The one letter of /proc/PID/stat; undefined when the process has gone. */
function stateOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').match(/\) (.)/)?.[1];
  } catch {
    return undefined;
  }
}

describe('agentrm-guard', () => {
  let daemon: TestDaemon;

  beforeEach(async () => {
    // Nothing to lend, and no deadline soon: a frozen call stays frozen as long as its daemon lives.
    daemon = await new TestDaemon({
      config: `
pool: { budget: 64M, keepAvailable: 100G }
ceiling: memory.max=1G
defaults: memory.high=64M
enforcement: { freezeDeadline: 5m }
`,
    }).start();
  });
  afterEach(async () => {
    await daemon.crash();
    await daemon.close();
  });

  const startCall = async () => {
    const child = spawn(agentrmBash, [growOverTheLine], {
      env: daemon.env(),
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const pid = Number((await lines.next()).value);
    const ended = once(child, 'exit');
    const cgroup = `/sys/fs/cgroup${readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().slice(3)}`;
    return {
      pid,
      cgroup,
      grow: () => child.stdin.end('\n'),
      /** With the throttle out of its way, as the guard leaves the limits alone. */
      async finishes() {
        writeFileSync(`${cgroup}/memory.high`, 'max');
        assert.equal((await lines.next()).value, 'grown');
        assert.deepEqual(await ended, [0, null]);
      },
    };
  };

  test('thaws a call whose daemon is killed, and it finishes', { timeout }, async () => {
    const call = await startCall();
    call.grow();
    await daemon.event((event) => event.kind === 'freeze');
    assert.equal(readFileSync(`${call.cgroup}/cgroup.freeze`, 'utf8'), '1\n');
    await daemon.crash();
    await until(() => readFileSync(`${call.cgroup}/cgroup.freeze`, 'utf8') === '0\n', 'it is thawed');
    await call.finishes();
  });

  test('a daemon that hung sees what was thawed, and is in charge again', { timeout }, async () => {
    const call = await startCall();
    call.grow();
    await daemon.event((event) => event.kind === 'freeze');
    const frozen = () => readFileSync(`${call.cgroup}/cgroup.freeze`, 'utf8') === '1\n';
    const tripwire = () => readFileSync(`${daemon.cgroup}/memory.high`, 'utf8') !== 'max\n';
    // Both are there until somebody takes them away; the tripwire is written by another thread.
    await until(() => frozen() && tripwire(), 'it is frozen, and the tripwire is there');
    daemon.signal('SIGSTOP');
    await until(() => !frozen() && !tripwire(), 'the guard thaws it, and takes the tripwire away');
    daemon.signal('SIGCONT');
    await daemon.event((event) => event.kind === 'thaw' && event.reason === 'thawed from outside');
    await until(tripwire, 'the tripwire is there again');
    // It is over its line as before.
    await until(frozen, 'the call is stopped again');
    await daemon.crash();
    await until(() => !frozen(), 'it is thawed');
    await call.finishes();
  });

  test('continues what the kernel stopped for a daemon that hangs, and it finishes', {
    timeout,
  }, async () => {
    const call = await startCall();
    // The program in the kernel stops tasks as long as the last beat is younger than 2 s.
    daemon.signal('SIGSTOP');
    call.grow();
    await until(() => stateOf(call.pid) === 'T', 'the kernel stops the call');
    await until(() => stateOf(call.pid) !== 'T', 'the guard continues it');
    await call.finishes();
  });

  /** In the hands of a daemon: frozen, and so counted, by the freezer alone. */
  const isHeld = async (call: Awaited<ReturnType<typeof startCall>>) => {
    const [live] = await daemon.liveCalls();
    return live?.state === 'frozen' && stateOf(call.pid) !== 'T';
  };

  test('a daemon that is there again at once holds what it was about to continue', { timeout }, async () => {
    const call = await startCall();
    call.grow();
    await daemon.event((event) => event.kind === 'freeze');
    // The guard thaws the call, and for the last beat of the one before the kernel stops it once more.
    await daemon.crash();
    await daemon.start();
    await until(() => isHeld(call), 'the call is frozen again');
    await daemon.crash();
    await call.finishes();
  });
});
