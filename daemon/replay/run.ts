// SPDX-License-Identifier: Apache-2.0
import type { Native } from '../kernel/native.ts';
import type { CallClass } from '../toolcall/intent.ts';
import { type Arm, limitsOf } from './arms.ts';
import { ManagedStage } from './managed-stage.ts';
import { PlainStage } from './plain-stage.ts';
import type { Ended, ReplayProcess } from './process.ts';
import type { Held, Stage } from './stage.ts';
import { quantile } from './statistics.ts';
import type { Trace } from './trace.ts';

/** One session of a run. */
export interface Session {
  /** As it was given, such as the path of a file. */
  readonly name: string;
  readonly trace: Trace;
  readonly class: CallClass;
  /** After the start of the run. */
  readonly delayMs: number;
}

export interface RunOptions {
  readonly arm: Arm;
  readonly sessions: readonly Session[];
  /** Of all sessions together; Infinity: none. */
  readonly limitBytes: number;
  readonly speed: number;
  /** Held by every session all the time, beside its trace. */
  readonly baseBytes: number;
  /** memory.high of the low sessions in the arm `high`, if not their share. */
  readonly lowHighBytes?: number;
  /** Ends the run, which then cleans up and rejects with its reason. */
  readonly signal: AbortSignal;
}

/** How one session fared. Times in ms; null where a session did not live to tell. */
export interface SessionResult {
  readonly trace: string;
  readonly class: CallClass;
  /** Its process got to the end of the trace and ended with 0. */
  readonly survived: boolean;
  /** From its start to the end of its trace. */
  readonly totalMs: number | null;
  /** By how much it came late in all: what it was held back, or what this host is too slow for. */
  readonly lateMs: number | null;
  /** Percentiles of how long each growth of its memory took. */
  readonly allocP50Ms: number | null;
  readonly allocP95Ms: number | null;
  readonly frozenMs: number;
  readonly throttledMs: number;
  /** How it ended otherwise than with 0: `SIGKILL`, `status 1`. */
  readonly ended: string | null;
  /** What it, or the wrapper, said on standard error. */
  readonly said: string | null;
}

/** From the orders to the start: so that all have read theirs when it is time, some hundreds of them too. */
const LEAD_NS = 500_000_000n;
const NS_PER_MS = 1e6;

/**
 * Replays all sessions at once, as processes of their own in cgroups of their own, within a common limit.
 * @throws AgentrmError without root or cgroup v2 with memory; Error if a session or the daemon cannot be started.
 */
export async function replay(native: Native, options: RunOptions): Promise<SessionResult[]> {
  const { signal } = options;
  signal.throwIfAborted();
  const stage = await openStage(native, options);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort);
  // While the stage was made nobody listened.
  if (signal.aborted) abort();
  const processes: ReplayProcess[] = [];
  try {
    return await Promise.race([perform(stage, options, processes), stage.failed, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
    for (const each of processes) each.kill();
    await stage.close();
  }
}

async function openStage(native: Native, options: RunOptions): Promise<Stage> {
  const { arm, limitBytes, sessions, lowHighBytes } = options;
  const classes = sessions.map((session) => session.class);
  if (arm === 'agentrm') return await ManagedStage.open(native, limitBytes, classes);
  return new PlainStage(native, limitBytes, limitsOf(arm, classes, limitBytes, lowHighBytes));
}

async function perform(
  stage: Stage,
  { sessions, speed, baseBytes }: RunOptions,
  processes: ReplayProcess[],
): Promise<SessionResult[]> {
  for (const index of sessions.keys()) processes.push(stage.open(index));
  await Promise.all(processes.map((each) => each.ready()));
  await stage.begin();
  const beginNs = process.hrtime.bigint() + LEAD_NS;
  const startsNs = sessions.map(({ delayMs }) => beginNs + BigInt(Math.round(delayMs * NS_PER_MS)));
  const ends = await Promise.all(
    processes.map(async (each, index) => {
      const { trace } = sessions[index] as Session;
      each.start({ trace, speed, baseBytes, startNs: startsNs[index] as bigint });
      const ended = await each.ended();
      stage.ended(index);
      return ended;
    }),
  );
  return await Promise.all(
    sessions.map(async (session, index) =>
      resultOf(session, ends[index] as Ended, await stage.held(index, startsNs[index] as bigint)),
    ),
  );
}

function resultOf(session: Session, { code, signal, report, stderr }: Ended, held: Held): SessionResult {
  const ms = (ns: number | undefined) => (ns === undefined ? null : ns / NS_PER_MS);
  const growthsMs = report?.growthsNs.map((ns) => ns / NS_PER_MS) ?? [];
  return {
    trace: session.name,
    class: session.class,
    survived: report !== undefined,
    totalMs: ms(report?.totalNs),
    lateMs: ms(report?.lateNs),
    allocP50Ms: quantile(growthsMs, 0.5),
    allocP95Ms: quantile(growthsMs, 0.95),
    ...held,
    ended: report === undefined ? (signal ?? `status ${code}`) : null,
    said: stderr.trim() || null,
  };
}
