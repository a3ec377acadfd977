// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Bpf, BpfEvent, CallStats, Native, Policy } from '../../native/agentrm.d.ts';

const dist = new URL('../../dist/', import.meta.url).pathname;
const hierarchy = '/sys/fs/cgroup';
const bpffs = '/sys/fs/bpf';

export const addonPath = `${dist}agentrm.node`;
export const native = createRequire(import.meta.url)(addonPath) as Native;
export const objectPath = `${dist}agentrm.bpf.o`;
export const MiB = 2 ** 20;

/** Why the kernel tests cannot run here, or undefined if they can. */
export function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  try {
    if (!native.isCgroup2(hierarchy)) return `${hierarchy} is not cgroup v2`;
  } catch {
    return `${hierarchy} is not there`;
  }
  return native.probeBpf().reason;
}

/** A cgroup of the lab, with a few shorthands. */
export class Cgroup {
  readonly path: string;
  readonly id: number;

  constructor(path: string) {
    mkdirSync(path, { recursive: true });
    this.path = path;
    this.id = statSync(path).ino;
  }

  write(name: string, value: string | number): void {
    writeFileSync(join(this.path, name), String(value));
  }

  read(name: string): string {
    return readFileSync(join(this.path, name), 'utf8').trim();
  }

  number(name: string): number {
    return Number(this.read(name));
  }

  /** Lets controllers be used by the cgroups below. */
  delegate(): this {
    this.write('cgroup.subtree_control', '+memory +pids');
    return this;
  }

  child(name: string): Cgroup {
    return new Cgroup(join(this.path, name));
  }

  pids(): number[] {
    return this.read('cgroup.procs').split('\n').filter(Boolean).map(Number);
  }

  /** Starts a command in this cgroup. */
  spawn(command: string, args: string[], stdio: 'ignore' | 'pipe' = 'ignore'): ChildProcess {
    const enter = `echo $$ > ${this.path}/cgroup.procs && exec "$@"`;
    return spawn('/bin/sh', ['-c', enter, 'sh', command, ...args], { stdio: [stdio, stdio, 'inherit'] });
  }

  /** Kills everything in it and removes it, with what is below. */
  async remove(): Promise<void> {
    this.write('cgroup.kill', 1);
    const directories = readdirSync(this.path, { withFileTypes: true }).filter((entry) =>
      entry.isDirectory(),
    );
    for (const { name } of directories) await new Cgroup(join(this.path, name)).remove();
    while (/^populated 1$/m.test(this.read('cgroup.events'))) await new Promise(setImmediate);
    rmdirSync(this.path);
  }
}

/** State letter of a process, as in /proc/PID/stat. */
export function stateOf(pid: number): string {
  return readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '')[0] ?? '';
}

/** Exit code or signal name of a child. */
export async function ended(child: ChildProcess): Promise<number | string | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode ?? child.signalCode;
}

/** Asks again each turn of the loop until the answer is yes; the test's own time limit ends it otherwise. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

let labs = 0;

/** A root cgroup of its own with the programs loaded for it, and a heartbeat. */
export class Lab {
  readonly root: Cgroup;
  readonly session: Cgroup;
  readonly pinDir: string;
  readonly events: BpfEvent[] = [];
  bpf: Bpf;
  #beat: NodeJS.Timeout | undefined;
  #waiting: ((event: BpfEvent) => void)[] = [];
  #calls = 0;

  constructor(hooks?: string[]) {
    new Cgroup(hierarchy).delegate();
    this.root = new Cgroup(join(hierarchy, `lab-${process.pid}-${labs++}`)).delegate();
    this.session = this.root.child('s1').delegate();
    mkdirSync(join(bpffs, 'agentrm-lab'), { recursive: true });
    this.pinDir = join(bpffs, 'agentrm-lab', String(this.root.id));
    this.bpf = this.open(hooks);
    this.startHeart();
  }

  /** Loads the programs once more, as a daemon does that comes after another. */
  open(hooks?: string[]): Bpf {
    return native.openBpf({
      object: objectPath,
      pinDir: this.pinDir,
      rootCgroupId: this.root.id,
      callLevel: 3,
      ...(hooks && { hooks }),
      events: (batch) => {
        this.events.push(...batch);
        for (const event of batch) for (const wake of this.#waiting.splice(0)) wake(event);
      },
    });
  }

  startHeart(): void {
    this.bpf.beat();
    this.#beat = setInterval(() => this.bpf.beat(), 250);
  }

  /** Stops beating. The last beat is then at most 250 ms old. */
  stopHeart(): void {
    clearInterval(this.#beat);
  }

  /** A new call with memory.high at `highMiB`, and a policy that stops it 2 % above unless told otherwise. */
  call(highMiB: number, policy: Partial<Policy> = {}): { cgroup: Cgroup; policy: Policy } {
    const cgroup = this.session.child(`c${++this.#calls}`);
    cgroup.write('memory.high', highMiB * MiB);
    const full: Policy = {
      freezeLineBytes: Math.round(highMiB * 1.02 * MiB),
      poolLineBytes: 0,
      budgetMs: 0,
      budgetEvents: 0,
      windowMs: 10_000,
      flags: 1,
      cycle: 0,
      ...policy,
    };
    this.bpf.setPolicy(cgroup.id, full);
    return { cgroup, policy: full };
  }

  /** The first event of a call that is one of `kinds`, past or future. */
  async event(cgroup: Cgroup, ...kinds: BpfEvent['kind'][]): Promise<BpfEvent> {
    const fits = (event: BpfEvent) => event.cgroupId === cgroup.id && kinds.includes(event.kind);
    for (;;) {
      const found = this.events.find(fits);
      if (found) return found;
      await new Promise<BpfEvent>((resolve) => this.#waiting.push(resolve));
    }
  }

  stats(cgroup: Cgroup): CallStats {
    const stats = this.bpf.stats(cgroup.id);
    if (!stats) throw new Error(`no statistics of ${cgroup.path}`);
    return stats;
  }

  /** The hand-over to the steady state: freezer on, then the stopped tasks are continued. */
  freeze(cgroup: Cgroup): void {
    cgroup.write('cgroup.freeze', 1);
    for (const { tgid } of this.bpf.stops(cgroup.id)) process.kill(tgid, 'SIGCONT');
  }

  /** Lends memory in the order that never stops or kills meanwhile: line, high, new cycle, then thaw. */
  lend(cgroup: Cgroup, policy: Policy, highMiB: number): Policy {
    const freezeLineBytes = Math.round(highMiB * 1.02 * MiB);
    const lent = { ...policy, freezeLineBytes, cycle: policy.cycle + 1 };
    // A machine among many others may have kept this process from its timer; what follows takes milliseconds.
    this.bpf.beat();
    this.bpf.setPolicy(cgroup.id, lent);
    cgroup.write('memory.high', highMiB * MiB);
    for (const { tgid } of this.bpf.stops(cgroup.id)) process.kill(tgid, 'SIGCONT');
    // Before the thaw: what stops after it belongs to the next cycle.
    this.bpf.clearStops(cgroup.id);
    cgroup.write('cgroup.freeze', 0);
    return lent;
  }

  async close(): Promise<void> {
    this.stopHeart();
    await this.root.remove();
    this.bpf.unpin();
    this.bpf.close();
  }
}
