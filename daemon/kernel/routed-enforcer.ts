// SPDX-License-Identifier: Apache-2.0
import { readlinkSync } from 'node:fs';
import type { Cgroup } from './cgroup.ts';
import type { Enforcer, EnforcerCounters, Line, StoppedTask, ThrottleStats } from './enforcer.ts';

/**
 * BPF for the calls below one root, whose depth and id the programs know, and the poller for those below
 * containers, which are at any depth.
 */
export class RoutedEnforcer implements Enforcer {
  readonly mode = 'bpf';
  readonly #rootPath: string;
  readonly #bpf: Enforcer;
  readonly #poller: Enforcer;
  readonly #polled = new Set<number>();

  constructor(rootPath: string, bpf: Enforcer, poller: Enforcer) {
    this.#rootPath = rootPath;
    this.#bpf = bpf;
    this.#poller = poller;
  }

  get hooks(): readonly string[] {
    return this.#bpf.hooks;
  }

  set(cgroup: Cgroup, line: Line, cycle: number): void {
    const polled = this.#polled.has(cgroup.id) || !this.#isBelowRoot(cgroup);
    if (polled) this.#polled.add(cgroup.id);
    (polled ? this.#poller : this.#bpf).set(cgroup, line, cycle);
  }

  forget(cgroup: Cgroup): void {
    this.#of(cgroup).forget(cgroup);
    this.#polled.delete(cgroup.id);
  }

  stats(cgroup: Cgroup): ThrottleStats {
    return this.#of(cgroup).stats(cgroup);
  }

  stoppedTasks(cgroup: Cgroup): readonly StoppedTask[] {
    return this.#of(cgroup).stoppedTasks(cgroup);
  }

  usageBytes(cgroup: Cgroup): number {
    return this.#of(cgroup).usageBytes(cgroup);
  }

  counters(): EnforcerCounters {
    return this.#bpf.counters();
  }

  beat(): void {
    this.#bpf.beat();
  }

  close(remove: boolean): void {
    this.#poller.close(remove);
    this.#bpf.close(remove);
  }

  #of(cgroup: Cgroup): Enforcer {
    return this.#polled.has(cgroup.id) ? this.#poller : this.#bpf;
  }

  #isBelowRoot(cgroup: Cgroup): boolean {
    return readlinkSync(`/proc/self/fd/${cgroup.fd}`).startsWith(`${this.#rootPath}/`);
  }
}
