// SPDX-License-Identifier: Apache-2.0
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ControlClient } from '../control/client.ts';
import type { Monitor } from '../control/types.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { jsonLine, print } from './output.ts';
import { screenOf } from './top-screen.ts';

/** What a person can follow; a look costs the daemon about a millisecond. */
const INTERVAL_S = 2;

/** Where output is no terminal: as much as is of use in a file. */
const LINES = 1_000;

interface Options extends GlobalOptions {
  readonly once?: true;
  readonly interval: number;
}

/** To the top left, and below what is written nothing; the screen is not erased first, which would flicker. */
const HOME = '\u001b[H';
const CLEAR_LINE = '\u001b[K';
const CLEAR_BELOW = '\u001b[J';

export function define(command: Command): void {
  command
    .option('--once', 'one screen and no more; whole, however long')
    .addOption(
      new Option('--interval <seconds>', 'how often it is refreshed, 0.1 to 3600')
        .argParser(seconds)
        .default(INTERVAL_S),
    )
    .addHelpText(
      'after',
      '\nWith --json one object, whatever else is asked for. Ends on Ctrl-C, or with the daemon.',
    )
    .action(async () => {
      const options = command.optsWithGlobals<Options>();
      const client = clientOf(options);
      if (options.json) await print(jsonLine(await look(client)));
      else if (options.once) for (const line of screenOf(await look(client))) await print(line);
      else await refresh(client, options.interval * 1000);
    });
}

function look(client: ControlClient): Promise<Monitor> {
  return client.get<Monitor>('/v1/monitor');
}

async function refresh(client: ControlClient, intervalMs: number): Promise<never> {
  const terminal = process.stdout.isTTY;
  if (terminal) await print(`${HOME}${CLEAR_BELOW}`);
  for (;;) {
    const rows = terminal ? process.stdout.rows - 1 : LINES;
    const lines = screenOf(await look(client));
    const shown =
      lines.length > rows ? [...lines.slice(0, rows - 1), `… ${lines.length - rows + 1} more lines`] : lines;
    await print(
      terminal
        ? `${HOME}${shown.map((line) => `${line}${CLEAR_LINE}`).join('\n')}${CLEAR_BELOW}`
        : `${shown.join('\n')}\n`,
    );
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}

function seconds(text: string): number {
  const number = Number(text);
  if (!(number >= 0.1 && number <= 3600)) throw new InvalidArgumentError('It must be 0.1 to 3600 seconds.');
  return number;
}
