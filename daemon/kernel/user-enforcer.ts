// SPDX-License-Identifier: Apache-2.0
import { closeSync } from 'node:fs';
import type { Cgroup } from './cgroup.ts';
import type {
  Enforcer,
  EnforcerCounters,
  EnforcerEvents,
  Line,
  StoppedTask,
  ThrottleStats,
} from './enforcer.ts';
import { files } from './files.ts';
import type { Native, Watch } from './native.ts';

/**
 * The fastest that a call is assumed to fill memory: 4 KiB faults on one core were measured at
 * 2.66 GB/s natively (kernel-notes/memory-high.md). The next look is due when the call nearest to
 * its line could have reached it.
 */
const FILL_BYTES_PER_MS = 2.66e6;
/** Node's timers have no finer grain. */
const SHORTEST_MS = 1;
/** A call over memory.high but far from its line must still be noticed within its throttle budget. */
const LONGEST_MS = 50;
/** Who is held at memory.high is a little below, by what reclaim takes at a time for each of a few tasks. */
const HELD_BELOW_BYTES = 1024 * 1024;

interface Watched {
  readonly cgroup: Cgroup;
  readonly currentFd: number;
  readonly events: Watch;
  readonly eventsFd: number;
  line: Line;
  cycle: number;
  reportedCycle: number;
  windowStartMs: number;
  windowStalledMs: number;
  stops: number;
}

/**
 * Enforcement without BPF: memory.current is read in one batch, as often as the smallest headroom
 * demands, and the call is frozen from user space. The overshoot is bounded by time, not by bytes.
 */
export class UserEnforcer implements Enforcer {
  readonly mode = 'user';
  readonly hooks: readonly string[] = ['memory.current'];
  readonly #native: Native;
  readonly #sink: EnforcerEvents;
  readonly #watched = new Map<number, Watched>();
  #fds = new Int32Array(0);
  #usages = new Float64Array(0);
  #timer: NodeJS.Timeout | undefined;

  constructor(native: Native, events: EnforcerEvents) {
    this.#native = native;
    this.#sink = events;
  }

  set(cgroup: Cgroup, line: Line, cycle: number): void {
    const known = this.#watched.get(cgroup.id);
    if (known !== undefined) {
      known.line = line;
      known.cycle = cycle;
      known.windowStartMs = 0;
    } else {
      this.#watched.set(cgroup.id, {
        cgroup,
        ...this.#open(cgroup),
        line,
        cycle,
        reportedCycle: cycle - 1,
        windowStartMs: 0,
        windowStalledMs: 0,
        stops: 0,
      });
      this.#index();
    }
    this.#schedule(SHORTEST_MS);
  }

  forget(cgroup: Cgroup): void {
    const known = this.#watched.get(cgroup.id);
    if (known === undefined) return;
    this.#watched.delete(cgroup.id);
    known.events.close();
    closeSync(known.eventsFd);
    closeSync(known.currentFd);
    this.#index();
  }

  stats(cgroup: Cgroup): ThrottleStats {
    const pressure = cgroup.memoryPressure();
    return {
      highEvents: cgroup.memoryEvents().high,
      throttledMs: Math.round(pressure.someTotalUs / 1000),
      throttledBy: 'pressure',
      stops: this.#watched.get(cgroup.id)?.stops ?? 0,
      firstStopNs: 0n,
    };
  }

  /** Nobody is stopped by a signal in this mode: the freezer does it all. */
  stoppedTasks(): readonly StoppedTask[] {
    return [];
  }

  usageBytes(cgroup: Cgroup): number {
    return cgroup.readNumber(files.memoryCurrent);
  }

  counters(): EnforcerCounters {
    return { eventsDropped: 0, recursionMisses: 0, sendSignalErrors: 0 };
  }

  beat(): void {}

  close(): void {
    clearTimeout(this.#timer);
    for (const { cgroup } of [...this.#watched.values()]) this.forget(cgroup);
  }

  #open(cgroup: Cgroup): Pick<Watched, 'currentFd' | 'eventsFd' | 'events'> {
    const opened: number[] = [];
    const open = (file: string): number => {
      const fd = this.#native.openAt(cgroup.fd, file, false);
      opened.push(fd);
      return fd;
    };
    try {
      const currentFd = open(files.memoryCurrent);
      const eventsFd = open(files.events);
      const events = this.#native.watch(eventsFd, 'priority', () => {
        if (!isPopulated(cgroup)) this.#sink.emptied(cgroup.id);
      });
      return { currentFd, eventsFd, events };
    } catch (error) {
      for (const fd of opened) closeSync(fd);
      throw error;
    }
  }

  #index(): void {
    this.#fds = Int32Array.from(this.#watched.values(), (entry) => entry.currentFd);
    this.#usages = new Float64Array(this.#fds.length);
  }

  #schedule(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), delayMs);
    this.#timer.unref();
  }

  #look(): void {
    const entries = [...this.#watched.values()];
    if (entries.length === 0) return;
    this.#native.readNumbers(this.#fds, this.#usages);
    let nextMs = LONGEST_MS;
    for (const [index, entry] of entries.entries()) {
      const usageBytes = this.#usages[index] ?? -1;
      // -1: the directory was removed under us; the call's end will say so.
      if (usageBytes < 0 || entry.reportedCycle === entry.cycle) continue;
      const reason = this.#overLine(entry, usageBytes);
      if (reason !== undefined) {
        entry.reportedCycle = entry.cycle;
        entry.stops += 1;
        this.#sink.stop({
          cgroupId: entry.cgroup.id,
          pid: 0,
          comm: '',
          usageBytes,
          reason,
          signalled: false,
          timeNs: this.#native.monotonicNs(),
        });
        continue;
      }
      const headroomMs = (entry.line.freezeLineBytes - usageBytes) / FILL_BYTES_PER_MS;
      nextMs = Math.min(nextMs, Math.max(SHORTEST_MS, Math.floor(headroomMs)));
    }
    if (this.#watched.size > 0) this.#schedule(nextMs);
  }

  /** memory.events counts reclaims that succeeded too, so here only stalled time is evidence. */
  #overLine(entry: Watched, usageBytes: number): 'line' | 'budget-time' | undefined {
    const { line } = entry;
    if (usageBytes > line.freezeLineBytes) return 'line';
    if (line.budgetMs === 0) return undefined;
    // It is held for others, at the pool's tripwire: that is nothing of its own.
    if (usageBytes < line.memoryHighBytes - HELD_BELOW_BYTES) {
      entry.windowStartMs = 0;
      return undefined;
    }
    const nowMs = performance.now();
    const stalledMs = stalledMsOf(entry.cgroup);
    if (stalledMs === undefined) return undefined;
    if (entry.windowStartMs === 0 || nowMs - entry.windowStartMs > line.windowMs) {
      entry.windowStartMs = nowMs;
      entry.windowStalledMs = stalledMs;
      return undefined;
    }
    return stalledMs - entry.windowStalledMs > line.budgetMs ? 'budget-time' : undefined;
  }
}

/** What was removed under us holds nothing; that it went is the news. */
function isPopulated(cgroup: Cgroup): boolean {
  try {
    return cgroup.populated();
  } catch {
    return false;
  }
}

/** Undefined if it cannot be read just now: one call's file must not end the looks at the others. */
function stalledMsOf(cgroup: Cgroup): number | undefined {
  try {
    return cgroup.memoryPressure().fullTotalUs / 1000;
  } catch {
    return undefined;
  }
}
