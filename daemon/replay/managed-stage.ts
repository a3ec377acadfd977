// SPDX-License-Identifier: Apache-2.0
import { ControlClient } from '../control/client.ts';
import type { CallEndEvent, CallRecord, Event } from '../control/types.ts';
import { messageOf } from '../errors.ts';
import type { Native } from '../kernel/native.ts';
import { distDir } from '../own-program.ts';
import type { CallClass } from '../toolcall/intent.ts';
import { RunCgroup } from './cgroups.ts';
import { PrivateDaemon } from './private-daemon.ts';
import { ReplayProcess, replayProgram } from './process.ts';
import type { Held, Stage } from './stage.ts';

/** The wrapper waits 2 s for its daemon at most; an emulated machine takes some seconds for dozens of starts. */
const PLACED_MS = 60_000;

/** Sessions as tool calls of a daemon of their own, whose pool is what they have in common. */
export class ManagedStage implements Stage {
  readonly failed: Promise<never>;
  readonly #run: RunCgroup;
  readonly #daemon: PrivateDaemon;
  readonly #classes: readonly CallClass[];
  readonly #calls: Calls;

  private constructor(run: RunCgroup, daemon: PrivateDaemon, classes: readonly CallClass[]) {
    this.#run = run;
    this.#daemon = daemon;
    this.#classes = classes;
    this.failed = daemon.ended.then((how) => {
      throw new Error(`the daemon of the run ended: ${how}`);
    });
    this.failed.catch(() => {});
    this.#calls = followCalls(daemon.socket, classes.length);
  }

  /** @throws AgentrmError if there is no cgroup v2 with memory to be had; Error if the daemon does not start. */
  static async open(
    native: Native,
    limitBytes: number,
    classes: readonly CallClass[],
  ): Promise<ManagedStage> {
    const run = new RunCgroup(native, limitBytes);
    try {
      return new ManagedStage(run, await PrivateDaemon.start(run.path, limitBytes), classes);
    } catch (error) {
      run.remove();
      throw error;
    }
  }

  open(index: number): ReplayProcess {
    // Not agentrm-bash: in all arms the session is this program and nothing else.
    return new ReplayProcess([`${distDir}agentrm-run`, replayProgram], {
      AGENTRM_SOCKET: this.#daemon.socket,
      AGENTRM_SESSION: sessionName(index),
      AGENTRM_INTENT: `class=${this.#classes[index]}`,
    });
  }

  async begin(): Promise<void> {
    // A session without the daemon would have no limit at all.
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new Error('not every session came under the daemon')), PLACED_MS).unref();
    });
    await Promise.race([this.#calls.started, late]);
  }

  ended(): void {}

  async held(index: number): Promise<Held> {
    const record = (await this.#calls.records).get(sessionName(index));
    if (record === undefined) throw new Error(`session ${index + 1} was not managed`);
    return { frozenMs: record.memory.frozenMs, throttledMs: record.memory.throttledMs };
  }

  async close(): Promise<void> {
    // Whatever fails, nothing is to be left that could still go.
    try {
      await this.#run.kill();
    } finally {
      await this.#daemon.close().finally(() => this.#run.remove());
    }
  }
}

function sessionName(index: number): string {
  return `replay-${index + 1}`;
}

interface Calls {
  /** All sessions run as calls of the daemon. */
  readonly started: Promise<void>;
  /** The record of each session, by its name, when all have ended. */
  readonly records: Promise<ReadonlyMap<string, CallRecord>>;
}

function followCalls(socket: string, count: number): Calls {
  const { promise: started, resolve, reject } = Promise.withResolvers<void>();
  const read = async () => {
    const records = new Map<string, CallRecord>();
    let starts = 0;
    for await (const { value } of new ControlClient([socket]).lines<Event>('/v1/events?follow=1', {
      follow: true,
    })) {
      if (value.kind === 'unmanaged') throw new Error('a session ran unmanaged');
      if (value.kind === 'call-start') starts += 1;
      if (starts === count) resolve();
      if (value.kind === 'call-end') {
        const { record } = value as CallEndEvent;
        records.set(record.session, record);
      }
      if (records.size === count) break;
    }
    return records;
  };
  const records = read().catch((error: unknown) => {
    // Not as it is: to the command line that would mean that the daemon of this host does not run.
    throw new Error(`the daemon of the run: ${messageOf(error)}`, { cause: error });
  });
  records.catch(reject);
  started.catch(() => {});
  return { started, records };
}
