// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { loadProgram, type Ran, type TestDaemon } from './daemon.ts';

/** A call that holds memory until it is told to end, or to take more and then end. */
export class Holder {
  readonly ran: Promise<Ran>;
  readonly #fifo: string;

  /**
   * @param session also the name of its fifo
   * @param mib how much it takes at once
   */
  constructor(daemon: TestDaemon, session: string, intent: string, mib: number) {
    this.#fifo = `${daemon.dir}/${session}`;
    execFileSync('mkfifo', [this.#fifo]);
    this.ran = daemon.run(`exec ${loadProgram} --bytes ${mib}M hold ${this.#fifo}`, {
      env: { AGENTRM_SESSION: session, AGENTRM_INTENT: intent },
    });
  }

  /** Lets it end, after it has taken so much more. */
  release(mib = 0): void {
    writeFileSync(this.#fifo, `${mib}M\n`);
  }
}
