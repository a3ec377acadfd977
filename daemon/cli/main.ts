// SPDX-License-Identifier: Apache-2.0
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { messageOf } from '../errors.ts';
import { version } from '../version.ts';
import type { CommandModule } from './command.ts';
import { exit, exitOf } from './exit.ts';
import { plain, watchOutput } from './output.ts';

/** Each command is loaded only when it is named: that keeps every one of them, and --help, quick. */
const commands: Readonly<Record<string, { summary: string; load: () => Promise<CommandModule> }>> = {
  status: { summary: 'how the daemon, its pool and its calls stand', load: () => import('./status.ts') },
  calls: { summary: 'tool calls, those that run and those that ended', load: () => import('./calls.ts') },
  sessions: {
    summary: 'agent sessions, their tool calls and their turns',
    load: () => import('./sessions.ts'),
  },
  top: { summary: 'both halves on one screen, refreshed', load: () => import('./top.ts') },
  events: { summary: 'what happened to calls, and what happens', load: () => import('./events.ts') },
  doctor: { summary: 'what this host offers, and what to do about it', load: () => import('./doctor.ts') },
  advise: {
    summary: 'what commands have needed, and what to ask for',
    load: () => import('./advise.ts'),
  },
  sim: { summary: 'loads of the AgentRM paper on the scheduler, simulated', load: () => import('./sim.ts') },
  replay: {
    summary: 'recorded memory of sessions, replayed under a limit',
    load: () => import('./replay.ts'),
  },
  'check-config': { summary: 'check the configuration of agentrmd', load: () => import('./check-config.ts') },
  version: { summary: 'the version of this program', load: () => import('./version.ts') },
};

const EXIT_CODES = `
Exit status: 0 ok, 1 failed, 2 usage, 3 no daemon, 4 denied, 5 degraded (works, but enforces less than it could).`;

watchOutput();
const program = new Command('agentrm')
  .description('Shows what AgentRM does with the tool calls of the agents on this host.')
  .version(version(), '--version', 'the version of this program')
  .option('--json', 'print JSON, one object a line')
  .option(
    '--socket <path>',
    'the control socket of the daemon (default: $AGENTRM_SOCKET, or where it usually is)',
    notEmpty,
  )
  .option('--no-color', 'no colours on a terminal, as with NO_COLOR in the environment')
  .on('option:no-color', () => {
    process.env.NO_COLOR = '1';
    delete process.env.FORCE_COLOR;
  })
  .configureHelp({ showGlobalOptions: true })
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'agentrm: ')) })
  .addHelpText('after', EXIT_CODES)
  .exitOverride();

try {
  for (const [name, { summary, load }] of Object.entries(commands)) {
    const command = program.command(name).description(summary);
    if (process.argv.includes(name)) (await load()).define(command);
  }
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? exit.ok : exit.usage;
  } else {
    process.stderr.write(`agentrm: ${plain(messageOf(error))}\n`);
    process.exitCode = exitOf(error);
  }
}

function notEmpty(path: string): string {
  if (path === '') throw new InvalidArgumentError('It must be a path.');
  return path;
}
