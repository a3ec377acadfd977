// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ProcessStat } from '../../daemon/kernel/proc.ts';
import { agentProcessOf, ownersOf } from '../../daemon/toolcall/agent.ts';

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

describe('ownersOf', () => {
  const family = [id(5), id(4), id(3), id(1)];
  test('are those up to the agent, and nobody above it', () => {
    assert.deepEqual(ownersOf(family, id(4)), [id(5), id(4)]);
  });
  test('are all if it is not known which one that is', () => {
    assert.deepEqual(ownersOf(family, null), family);
  });
  test('are none if the agent is none of them', () => {
    assert.deepEqual(ownersOf(family, { pid: 4, startTicks: 0 }), []);
  });
});

function id(pid: number) {
  return { pid, startTicks: pid * 10 };
}
