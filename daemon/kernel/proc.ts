// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from 'node:fs';
import { errnoOf } from '../errors.ts';

/** Who a process is, safe against a recycled pid: a pid together with its start time. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot, field 22 of /proc/PID/stat. */
  readonly startTicks: number;
}

export interface ProcessStat extends ProcessId {
  readonly ppid: number;
  /** The name of its program, as long as the kernel keeps it: 15 bytes. Any process can change its own. */
  readonly comm: string;
  /** One letter: R S D T t Z X …, proc(5). */
  readonly state: string;
}

/**
 * Reads /proc/PID/stat. The command name in it may hold anything, `)` and spaces too, so the fields
 * are counted from the last `)`.
 * @returns undefined if there is no such process.
 * @throws Error with errno and path if it cannot be read for another reason: a daemon that is out of
 *   descriptors must not take every process for dead.
 */
export function processStat(pid: number, procRoot = '/proc'): ProcessStat | undefined {
  const text = readOfProcess(`${procRoot}/${pid}/stat`);
  if (text === undefined) return undefined;
  const nameEnd = text.lastIndexOf(')');
  const comm = text.slice(text.indexOf('(') + 1, nameEnd);
  const fields = text.slice(nameEnd + 2).split(' ');
  const [state, ppid] = fields;
  const startTicks = Number(fields[19]);
  if (state === undefined || ppid === undefined || !Number.isFinite(startTicks)) return undefined;
  return { pid, startTicks, ppid: Number(ppid), comm, state };
}

/** Whether that very process (not another with its pid) still runs; a zombie does not. */
export function isAlive(id: ProcessId, procRoot = '/proc'): boolean {
  const stat = processStat(id.pid, procRoot);
  return stat !== undefined && stat.startTicks === id.startTicks && stat.state !== 'Z' && stat.state !== 'X';
}

/** The ancestors of a process, nearest first, without pid 1 (which owns nothing). At most 64. */
export function ancestors(pid: number, procRoot = '/proc'): ProcessStat[] {
  const chain: ProcessStat[] = [];
  let next = processStat(pid, procRoot)?.ppid ?? 0;
  // 64: deeper chains are shells in shells; an owner is looked for among the nearest only.
  while (next > 1 && chain.length < 64) {
    const stat = processStat(next, procRoot);
    if (stat === undefined) break;
    chain.push(stat);
    next = stat.ppid;
  }
  return chain;
}

/**
 * The path of a process in the cgroup v2 hierarchy, as in the `0::` line of /proc/PID/cgroup.
 * @returns undefined if the process is gone.
 * @throws Error with errno and path if it cannot be read for another reason.
 */
export function cgroupPathOf(pid: number, procRoot = '/proc'): string | undefined {
  const text = readOfProcess(`${procRoot}/${pid}/cgroup`, 'utf8') ?? '';
  for (const line of text.split('\n')) if (line.startsWith('0::')) return line.slice(3);
  return undefined;
}

/** The children that a process has forked from its first thread, as shells do; none if it is gone. */
export function childrenOf(pid: number, procRoot = '/proc'): number[] {
  const text = readOfProcess(`${procRoot}/${pid}/task/${pid}/children`) ?? '';
  return text.split(' ').filter(Boolean).map(Number);
}

/** All descendants of a process, parents before children. One pass over /proc. */
export function descendants(pid: number, procRoot = '/proc'): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync(procRoot)) {
    if (!/^\d+$/.test(name)) continue;
    const stat = processStat(Number(name), procRoot);
    if (stat === undefined) continue;
    const siblings = children.get(stat.ppid);
    if (siblings === undefined) children.set(stat.ppid, [stat.pid]);
    else siblings.push(stat.pid);
  }
  const found: number[] = [];
  const pending = [pid];
  for (let parent = pending.pop(); parent !== undefined; parent = pending.pop()) {
    for (const child of children.get(parent) ?? []) {
      found.push(child);
      pending.push(child);
    }
  }
  return found;
}

function readOfProcess(path: string, encoding: 'latin1' | 'utf8' = 'latin1'): string | undefined {
  try {
    return readFileSync(path, encoding);
  } catch (error) {
    // ESRCH: it ended between open and read.
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined;
    throw error;
  }
}
