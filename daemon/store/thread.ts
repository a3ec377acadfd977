// SPDX-License-Identifier: Apache-2.0
import { Worker } from 'node:worker_threads';
import { messageOf } from '../errors.ts';
import { ownProgram, quietOptions } from '../own-program.ts';
import type { LearnedRow, StoredRow } from './database.ts';
import type { Reply, Request, Work, WorkerSettings } from './worker.ts';

/** What each kind of work gives back. */
interface Results {
  write: undefined;
  start: number | undefined;
  page: readonly StoredRow[];
  learned: readonly LearnedRow[];
  close: undefined;
}

type Kind = keyof Results;
type WorkOf<K extends Kind> = Extract<Work, { do: K }>;

export interface StoreThreadOptions {
  readonly settings: WorkerSettings;
  readonly onNotice: (notice: string) => void;
  /** The thread's program; default worker.ts. */
  readonly file?: URL;
  /** How long it may have nothing to do; default {@link IDLE_MS}. */
  readonly idleMs?: number;
}

/** Records in one transaction, and in one page of an answer: at most some 1.5 MB between the threads. */
export const BATCH = 256;

/** Why there is no answer, or none in time. */
export const NO_ANSWER = 'the database does not answer';

/** Requests that may wait for a slow disk; more fail at once, so that a stuck disk costs no memory. */
const MAX_WAITING = 16;

/**
 * The heap of the thread: one batch of records at their longest is about 2 MB. Past the limit the thread
 * ends, and with the next request a new one begins.
 */
const HEAP_MIB = 32;

/**
 * A daemon with nothing to do should be small: a thread takes about 15 MB, nearly all of it Node's own, of which 10
 * come back when it ends. Calls come seconds apart or not for long, and to begin again takes 80 ms, which nobody
 * waits for.
 */
const IDLE_MS = 30_000;

/** The far side of the database thread, which is there only while it is needed. It holds no process up. */
export class StoreThread {
  readonly #options: StoreThreadOptions;
  #thread: Thread | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: StoreThreadOptions) {
    this.#options = options;
  }

  /** Rejects with the database's message if the work failed, or if the thread ended. */
  async request<K extends Kind>(work: WorkOf<K>): Promise<Results[K]> {
    clearTimeout(this.#idle);
    this.#thread ??= this.#start();
    const thread = this.#thread;
    try {
      return await thread.request(work);
    } finally {
      if (thread === this.#thread && !thread.busy) {
        clearTimeout(this.#idle);
        this.#idle = setTimeout(() => this.close(), this.#options.idleMs ?? IDLE_MS).unref();
      }
    }
  }

  /** Closes the database and ends the thread, if there is one. Waits for what it is doing. */
  async close(): Promise<void> {
    clearTimeout(this.#idle);
    const thread = this.#thread;
    // From now on a request has a new thread.
    this.#thread = undefined;
    await thread?.close();
  }

  #start(): Thread {
    const thread: Thread = new Thread(this.#options, () => {
      if (this.#thread === thread) this.#thread = undefined;
    });
    return thread;
  }
}

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

class Thread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #numbers = 0;

  constructor(
    { file = ownProgram('store/worker'), settings, onNotice }: StoreThreadOptions,
    onEnd: () => void,
  ) {
    this.#worker = new Worker(file, {
      workerData: settings,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
      // What the daemon was started with is for its main thread, but for what keeps SQLite quiet.
      execArgv: quietOptions(),
    });
    this.#worker.unref();
    let why = 'the database thread ended';
    this.#worker.on('message', (reply: Reply) => {
      if ('notice' in reply) onNotice(reply.notice);
      else this.#take(reply);
    });
    this.#worker.on('error', (error) => {
      why = `the database thread failed: ${messageOf(error)}`;
    });
    this.#worker.on('exit', () => {
      onEnd();
      for (const { reject } of this.#waiting.values()) reject(new Error(why));
      this.#waiting.clear();
    });
  }

  get busy(): boolean {
    return this.#waiting.size > 0;
  }

  request<K extends Kind>(work: WorkOf<K>): Promise<Results[K]> {
    if (this.#waiting.size >= MAX_WAITING) return Promise.reject(new Error(NO_ANSWER));
    return new Promise<Results[K]>((resolve, reject) => {
      this.#numbers += 1;
      this.#waiting.set(this.#numbers, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ number: this.#numbers, work } satisfies Request);
    });
  }

  async close(): Promise<void> {
    // What fails here has nothing left to lose: the file is sound without having been closed.
    await this.request({ do: 'close' }).catch(() => {});
    await this.#worker.terminate();
  }

  #take(reply: Exclude<Reply, { notice: string }>): void {
    const waiting = this.#waiting.get(reply.number);
    this.#waiting.delete(reply.number);
    if (!this.busy) this.#worker.unref();
    if ('error' in reply) waiting?.reject(new Error(reply.error));
    else waiting?.resolve(reply.result as never);
  }
}
