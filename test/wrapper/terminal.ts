// SPDX-License-Identifier: Apache-2.0
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';
import { start } from './shell.ts';

/** Nothing more comes on a screen that has stood still for so long: the test fails with what it shows. */
const STUCK_MS = 20_000;

/** A command on a pseudo terminal of its own, by util-linux' script(1). */
export class Terminal {
  readonly process: ChildProcessWithoutNullStreams;
  #screen = '';
  #ended = false;
  #changed = (): void => {};

  /** @param command Executed by sh as the leader of the terminal's session. */
  constructor(command: string, env: Record<string, string>) {
    const args = ['--quiet', '--return', '--command', `exec ${command}`, '/dev/null'];
    this.process = start('script', args, { env: { TERM: 'dumb', SHELL: '/bin/sh', ...env } });
    this.process.stdout.setEncoding('latin1').on('data', (text: string) => {
      this.#screen += text;
      this.#changed();
    });
    this.process.stdout.on('end', () => {
      this.#ended = true;
      this.#changed();
    });
  }

  /** Waits until `text` shows, and forgets everything up to it, which it returns. */
  async expect(text: string): Promise<string> {
    let at = this.#screen.indexOf(text);
    for (; at < 0; at = this.#screen.indexOf(text)) {
      if (this.#ended)
        throw new Error(`ended without ${JSON.stringify(text)}: ${JSON.stringify(this.#screen)}`);
      await this.#unlessStuck(
        text,
        new Promise<void>((resolve) => {
          this.#changed = resolve;
        }),
      );
    }
    const before = this.#screen.slice(0, at);
    this.#screen = this.#screen.slice(at + text.length);
    return before;
  }

  async #unlessStuck(what: string, event: Promise<unknown>): Promise<void> {
    const stuck = Symbol();
    const first = await Promise.race([event, setTimeout(STUCK_MS, stuck, { ref: false })]);
    if (first === stuck)
      throw new Error(`waited for ${JSON.stringify(what)}, saw ${JSON.stringify(this.#screen)}`);
  }

  type(keys: string): void {
    this.process.stdin.write(keys);
  }

  /** The exit status of the command. */
  async end(): Promise<number | null> {
    if (this.process.exitCode === null) await this.#unlessStuck('the end', once(this.process, 'exit'));
    return this.process.exitCode;
  }

  /** Hangs up. */
  [Symbol.dispose](): void {
    this.process.kill('SIGKILL');
  }
}
