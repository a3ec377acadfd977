// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ProcessStat } from '../../daemon/kernel/proc.ts';
import { agentProcessOf } from '../../daemon/toolcall/agent.ts';

/** The ancestors of a wrapper, nearest first, by the names of their programs. */
const chain = (...names: string[]): ProcessStat[] =>
  names.map((comm, index) => ({ pid: 100 - index, ppid: 99 - index, startTicks: 7, state: 'S', comm }));

for (const { names, named, agent } of [
  { names: ['claude', 'bash', 'sshd'], named: true, agent: 100 },
  { names: ['sh', 'bash', 'node', 'bash', 'sshd'], named: true, agent: 98 },
  { names: ['bash', 'sh'], named: true, agent: null },
  { names: [], named: true, agent: null },
  { names: ['python3', 'bash'], named: false, agent: 100 },
  { names: ['bash', 'tmux: server'], named: false, agent: null },
  { names: [], named: false, agent: null },
]) {
  test(`${named ? 'named' : 'unnamed'} session below ${names.join(' < ') || 'nothing'}`, () => {
    const found = agentProcessOf(chain(...names), named);
    assert.deepEqual(found, agent === null ? null : { pid: agent, startTicks: 7 });
  });
}
