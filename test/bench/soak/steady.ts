// SPDX-License-Identifier: Apache-2.0
import { agentrmBash, type TestDaemon } from '../../lib/daemon.ts';
import { type Summary, summary } from '../stats.ts';
import { held, managedCalls, output, quiet, timePath } from '../tools.ts';

export interface Part {
  readonly calls: number;
  readonly perMinute: number;
  readonly callMs: Summary;
  /** Of the daemon, when all calls of the part had ended. */
  readonly rssBytes: number;
  readonly fds: number;
}

export interface SteadyResult {
  readonly atOnce: number;
  /** From the start of the first to the end of each. */
  readonly atOnceMs: Summary;
  readonly managed: number;
  readonly calls: number;
  /** The time, in five equal parts. */
  readonly parts: readonly Part[];
}

export interface SteadyOptions {
  readonly atOnce: number;
  readonly minutes: number;
  readonly parallel: number;
}

const PARTS = 5;
/** Calls that one caller makes before it is asked whether the time is over. */
const CHUNK = 10;
const COMMAND = [agentrmBash, '-c', 'true'] as const;

/** So many calls at once, then one after the other by several callers, as fast as they can. */
export async function steady(daemon: TestDaemon, options: SteadyOptions): Promise<SteadyResult> {
  const env = daemon.env();
  const times = (text: string) =>
    text
      .trim()
      .split('\n')
      .map((ns) => Number(ns) / 1e6);
  // What a daemon loads with its first calls is no growth.
  await output([timePath, 'rounds', '20', '0', '--', ...COMMAND], { env });
  const before = await managedCalls(daemon);
  const burst = await output([timePath, 'burst', `${options.atOnce}`, '--', ...COMMAND], { env });
  await quiet(daemon);
  const parts: Part[] = [];
  for (let part = 0; part < PARTS; part += 1) {
    const started = performance.now();
    const end = started + (options.minutes * 60_000) / PARTS;
    const found: number[] = [];
    const caller = async (): Promise<void> => {
      while (performance.now() < end) {
        const { stdout } = await output([timePath, 'rounds', `${CHUNK}`, '0', '--', ...COMMAND], { env });
        found.push(...times(stdout));
      }
    };
    await Promise.all(Array.from({ length: options.parallel }, caller));
    const tookMs = performance.now() - started;
    await quiet(daemon);
    const perMinute = (found.length * 60_000) / tookMs;
    const { rssBytes, fds } = held(daemon.pid);
    parts.push({ calls: found.length, perMinute, callMs: summary(found), rssBytes, fds });
    console.log(parts.at(-1));
  }
  return {
    atOnce: options.atOnce,
    atOnceMs: summary(times(burst.stdout)),
    managed: (await managedCalls(daemon)) - before,
    calls: options.atOnce + parts.reduce((sum, { calls }) => sum + calls, 0),
    parts,
  };
}
