// SPDX-License-Identifier: Apache-2.0
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../errors.ts';
import {
  Database,
  type DatabaseOptions,
  type Filter,
  type LearnedFilter,
  type LearnedRow,
  type Row,
  type StoredRow,
} from './database.ts';

/** What the thread is started with. */
export type WorkerSettings = Omit<DatabaseOptions, 'onNotice'>;

export type Work =
  | { readonly do: 'write'; readonly rows: readonly Row[] }
  | { readonly do: 'start'; readonly filter: Filter; readonly limit: number }
  | { readonly do: 'page'; readonly filter: Filter; readonly seq: number; readonly limit: number }
  | { readonly do: 'learned'; readonly filter: LearnedFilter; readonly id: number; readonly limit: number }
  | { readonly do: 'close' };

export type WorkResult = number | undefined | readonly StoredRow[] | readonly LearnedRow[];

/** A request has one reply; a notice comes by itself. */
export interface Request {
  readonly number: number;
  readonly work: Work;
}

export type Reply =
  | { readonly number: number; readonly result: WorkResult }
  | { readonly number: number; readonly error: string }
  | { readonly notice: string };

// The thread that owns the database: the only one in the daemon that waits for the disk.
const port = parentPort;
if (port !== null) {
  const settings: WorkerSettings = workerData;
  const reply = (message: Reply): void => port.postMessage(message);
  const database = new Database({ ...settings, onNotice: (notice) => reply({ notice }) });

  const run = (work: Work): WorkResult => {
    switch (work.do) {
      case 'write':
        database.write(work.rows);
        return undefined;
      case 'start':
        return database.start(work.filter, work.limit);
      case 'page':
        return database.page(work.filter, work.seq, work.limit);
      case 'learned':
        return database.learned(work.filter, work.id, work.limit);
      case 'close':
        database.close();
        return undefined;
    }
  };

  port.on('message', ({ number, work }: Request) => {
    try {
      reply({ number, result: run(work) });
    } catch (error) {
      reply({ number, error: messageOf(error) });
    }
  });
}
