// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { Ran, TestDaemon } from './daemon.ts';

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
    // tail keeps all that it has read of a line that does not end.
    const more = `read more < ${this.#fifo}; head -c "$more"M /dev/zero`;
    this.ran = daemon.run(`{ head -c ${mib}M /dev/zero; ${more}; } | tail -n 1 >/dev/null`, {
      env: { AGENTRM_SESSION: session, AGENTRM_INTENT: intent },
    });
  }

  /** Lets it end, after it has taken so much more. */
  release(mib = 0): void {
    writeFileSync(this.#fifo, `${mib}\n`);
  }
}
