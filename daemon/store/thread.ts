// SPDX-License-Identifier: Apache-2.0
import { Worker } from 'node:worker_threads';
import type { StoredRow } from './database.ts';
import type { Reply, Request, Work, WorkerSettings } from './worker.ts';

/** What each kind of work gives back. */
interface Results {
  write: undefined;
  start: number | undefined;
  page: readonly StoredRow[];
  close: undefined;
}

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

/** Requests that may wait for a slow disk; more fail at once, so that a stuck disk costs no memory. */
const MAX_WAITING = 16;

/**
 * The heap of the thread: one batch of records at their longest is about 2 MB. Past the limit the thread
 * ends, and with the next request a new one begins.
 */
const HEAP_MIB = 32;

/** The far side of the database thread, which is started at the first request. It holds no process up. */
export class StoreThread {
  readonly #file: URL;
  readonly #settings: WorkerSettings;
  readonly #onNotice: (notice: string) => void;
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #numbers = 0;

  constructor(settings: WorkerSettings, onNotice: (notice: string) => void, file = workerFile()) {
    this.#settings = settings;
    this.#onNotice = onNotice;
    this.#file = file;
  }

  /** Rejects with the database's message if the work failed, or if the thread ended. */
  request<K extends keyof Results>(work: Extract<Work, { do: K }>): Promise<Results[K]> {
    if (this.#waiting.size >= MAX_WAITING) return Promise.reject(new Error('the database does not answer'));
    return new Promise<Results[K]>((resolve, reject) => {
      this.#worker ??= this.#start();
      this.#numbers += 1;
      this.#waiting.set(this.#numbers, { resolve, reject });
      this.#worker.ref();
      this.#worker.postMessage({ number: this.#numbers, work } satisfies Request);
    });
  }

  /** Closes the database and ends the thread, if there is one. Waits for what it is doing. */
  async close(): Promise<void> {
    if (this.#worker === undefined) return;
    // What fails here has nothing left to lose: the file is sound without having been closed.
    await this.request({ do: 'close' }).catch(() => {});
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(this.#file, {
      workerData: this.#settings,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
      // The thread has nothing to say but replies, and must not inherit a loader or inspector.
      execArgv: process.execArgv.filter((argument) => argument.startsWith('--disable-warning')),
    });
    worker.unref();
    let why = 'the database thread ended';
    worker.on('message', (reply: Reply) => this.#take(reply));
    worker.on('error', (error) => {
      why = `the database thread failed: ${error instanceof Error ? error.message : String(error)}`;
    });
    worker.on('exit', () => {
      this.#worker = undefined;
      for (const { reject } of this.#waiting.values()) reject(new Error(why));
      this.#waiting.clear();
    });
    return worker;
  }

  #take(reply: Reply): void {
    if ('notice' in reply) {
      this.#onNotice(reply.notice);
      return;
    }
    const waiting = this.#waiting.get(reply.number);
    this.#waiting.delete(reply.number);
    if (this.#waiting.size === 0) this.#worker?.unref();
    if ('error' in reply) waiting?.reject(new Error(reply.error));
    else waiting?.resolve(reply.result as never);
  }
}

/** The thread's source beside this file, as it is or as it was built. */
function workerFile(): URL {
  return new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url);
}
