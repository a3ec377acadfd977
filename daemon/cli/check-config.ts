// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { loadConfig } from '../config/load.ts';
import { formatProblem } from '../config/source.ts';
import type { GlobalOptions } from './command.ts';
import { exit } from './exit.ts';
import { jsonLine, plain, print } from './output.ts';

export function define(command: Command): void {
  command
    .argument('[file]', 'a configuration file (default: all that agentrmd would read)')
    .action(async (file: string | undefined) => {
      const { json } = command.optsWithGlobals<GlobalOptions>();
      // The environment of this shell is not that of the daemon; where a user's own file is they have in common.
      const { HOME, XDG_CONFIG_HOME } = process.env;
      const loaded = loadConfig({ file, env: { HOME, XDG_CONFIG_HOME } });
      const files = loaded.ok ? loaded.files : [...new Set(loaded.problems.map(({ source }) => source))];
      const problems = loaded.ok ? [] : loaded.problems;
      if (json) await print(jsonLine({ ok: loaded.ok, files, problems }));
      else if (loaded.ok)
        await print(
          files.length === 0 ? 'no file: the defaults apply' : `${files.map(plain).join(', ')}: ok`,
        );
      else for (const problem of problems) process.stderr.write(`${plain(formatProblem(problem))}\n`);
      if (!loaded.ok) process.exitCode = exit.failed;
    });
}
