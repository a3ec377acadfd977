// SPDX-License-Identifier: Apache-2.0
import { readFileSync, readlinkSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { errnoOf } from '../errors.ts';

/** Files of /proc that are read in a row: they take a millisecond at most, emulated too. */
const READS_A_TURN = 32;

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

export function isSameProcess(one: ProcessId, other: ProcessId): boolean {
  return one.pid === other.pid && one.startTicks === other.startTicks;
}

/** Whether that very process (not another with its pid) still runs; a zombie does not. */
export function isAlive(id: ProcessId, procRoot = '/proc'): boolean {
  const stat = processStat(id.pid, procRoot);
  return stat !== undefined && stat.startTicks === id.startTicks && stat.state !== 'Z' && stat.state !== 'X';
}

/** Whether that very process has its number still; a zombie does. */
export function hasItsNumber(id: ProcessId, procRoot = '/proc'): boolean {
  return processStat(id.pid, procRoot)?.startTicks === id.startTicks;
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

/**
 * What tells the cgroup namespace of a process from others.
 * @returns undefined if the process is gone, or is none of ours to look into.
 */
export function cgroupNamespaceOf(pid: number | 'self', procRoot = '/proc'): string | undefined {
  try {
    return readlinkSync(`${procRoot}/${pid}/ns/cgroup`);
  } catch {
    return undefined;
  }
}

/** The children that a process has forked from its first thread, as shells do; none if it is gone. */
export function childrenOf(pid: number, procRoot = '/proc'): number[] {
  return childrenOfThread(pid, String(pid), procRoot);
}

/**
 * The children of all threads of a process. The main loop gets its turns meanwhile, however many they are.
 *
 * The kernel's lists hold still for nobody: a child is passed over if one before it is reaped while its list is read, or
 * if its thread ends and hands it to one that was read already; another look finds it. A child whose parent ends is no
 * descendant any more, but a child of init: nothing finds it.
 */
export async function childrenOfThreads(parent: ProcessId, procRoot = '/proc'): Promise<ProcessId[]> {
  const found: ProcessId[] = [];
  let reads = 0;
  const turn = () => (++reads % READS_A_TURN === 0 ? setImmediate() : undefined);
  for (const thread of await threadsOf(parent.pid, procRoot)) {
    await turn();
    for (const pid of childrenOfThread(parent.pid, thread, procRoot)) {
      await turn();
      const child = processStat(pid, procRoot);
      // Asked in this order: either number may have become another's since the list was read.
      if (child?.ppid !== parent.pid || !hasItsNumber(parent, procRoot)) continue;
      found.push({ pid, startTicks: child.startTicks });
    }
  }
  return found;
}

async function threadsOf(pid: number, procRoot: string): Promise<string[]> {
  try {
    // Not by this thread: a process may have thousands.
    return await readdir(`${procRoot}/${pid}/task`);
  } catch (error) {
    if (isGone(error)) return [];
    throw error;
  }
}

function childrenOfThread(pid: number, thread: string, procRoot: string): number[] {
  const text = readOfProcess(`${procRoot}/${pid}/task/${thread}/children`) ?? '';
  return text.split(' ').filter(Boolean).map(Number);
}

function readOfProcess(path: string, encoding: 'latin1' | 'utf8' = 'latin1'): string | undefined {
  try {
    return readFileSync(path, encoding);
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

/** ESRCH: it ended between open and read. */
function isGone(error: unknown): boolean {
  return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH';
}
