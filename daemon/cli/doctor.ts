// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import type { Command } from 'commander';
import { type ControlClient, ControlError } from '../control/client.ts';
import type { Check, CheckStatus, DoctorReport, Status } from '../control/types.ts';
import { messageOf } from '../errors.ts';
import { canAttach } from '../kernel/attach.ts';
import { mayMove } from '../kernel/delegation.ts';
import { hostChecks } from '../kernel/doctor.ts';
import { cgroupPathOf } from '../kernel/proc.ts';
import { cgroupMountOf } from '../kernel/tree.ts';
import { clientOf, type GlobalOptions } from './command.ts';
import { exit } from './exit.ts';
import { jsonLine, plain, print, type Style, table } from './output.ts';

export function define(command: Command): void {
  command
    .addHelpText(
      'after',
      '\nWorks without a daemon too. Exits with 1 if nothing can be enforced, 5 if less than could be.',
    )
    .action(async () => {
      const options = command.optsWithGlobals<GlobalOptions>();
      const report = await examine(clientOf(options));
      if (options.json) await print(jsonLine(report));
      else for (const line of describe(report)) await print(line);
      process.exitCode = exitOf(report);
    });
}

/** A running daemon is asked about the host: it sees more than an ordinary user does. */
async function examine(client: ControlClient): Promise<DoctorReport> {
  const claude = claudeCheck(process.env, `${homedir()}/.claude/settings.json`);
  try {
    const status = await client.get<Status>('/v1/status');
    const { checks } = await client.get<DoctorReport>('/v1/doctor');
    return {
      checks: [daemonCheck(status), ...backendChecks(status), ...placementChecks(status), ...checks, claude],
    };
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    return { checks: [noDaemon(error), ...(await hostChecks()), claude] };
  }
}

function daemonCheck({ version, pid, socket }: Status): Check {
  return { name: 'daemon', status: 'ok', detail: `${version}, pid ${pid}, on ${socket}` };
}

function noDaemon(error: ControlError): Check {
  const fixes = {
    'no-daemon': 'Start agentrmd, or name its socket with --socket.',
    denied: 'Ask as the user that agentrmd runs as, or as root.',
    failed: 'Restart agentrmd, and see what it has logged.',
  };
  return {
    name: 'daemon',
    status: 'warn',
    detail: `${messageOf(error)}: commands run unmanaged`,
    fix: fixes[error.failure],
  };
}

function backendChecks({ backend }: Status): Check[] {
  const name = 'enforcement';
  const details = {
    bpf: `in the kernel, by BPF (${backend.hooks.join(', ')})`,
    user: 'by a poller in user space, which stops calls later than the kernel would',
    none: 'none: every command runs unmanaged',
  };
  const because = backend.reason === null ? '' : `: ${backend.reason}`;
  const statuses: Record<Status['backend']['mode'], CheckStatus> = { bpf: 'ok', user: 'warn', none: 'fail' };
  const mode: Check = { name, status: statuses[backend.mode], detail: details[backend.mode] + because };
  const others = backend.degraded.filter((reason) => reason !== backend.reason);
  return [mode, ...others.map((detail): Check => ({ name, status: 'warn', detail }))];
}

/** What to do about commands that a daemon which is not root cannot place. */
const START_INSIDE =
  'Start the agent by systemd-run --user --scope, or in a terminal that systemd --user has started.';

/** Whether commands from here can be placed. Root's daemon places them from anywhere. */
function placementChecks({ uid, cgroup, backend, counters }: Status): Check[] {
  if (uid === 0 || backend.mode === 'none') return [];
  const name = 'placement';
  const mount = cgroupMountOf(cgroup);
  const here = cgroupPathOf(process.pid);
  if (mount === undefined || here === undefined) return [];
  if (
    !canAttach(cgroup.slice(mount.length)) &&
    !mayMove(mount, cgroup.slice(mount.length), here, process.geteuid?.() ?? 0)
  ) {
    return [
      {
        name,
        status: 'warn',
        detail: `commands from here run unmanaged: from ${here} only root may move them below ${cgroup}`,
        fix: START_INSIDE,
      },
    ];
  }
  const missed = counters.unmanagedOutside ?? 0;
  if (missed === 0) return [{ name, status: 'ok', detail: `commands from ${here} can be placed` }];
  return [
    {
      name,
      status: 'warn',
      detail: `commands from here can be placed, but ${missed} command${missed === 1 ? '' : 's'} from elsewhere ran unmanaged`,
      fix: START_INSIDE,
    },
  ];
}

/** Values with which Claude Code takes its own memory cap as switched off. */
const OFF = new Set(['', '0', 'off', 'false', 'no', 'none']);

/** Claude Code's own cap is a second writer: one memory.max for all commands of a session together. */
function claudeCheck(env: NodeJS.ProcessEnv, settingsPath: string): Check {
  const name = 'claude-code';
  const variable = 'CLAUDE_CODE_TOOL_MEMORY_LIMIT';
  const sources = { environment: env[variable], [settingsPath]: settingOf(settingsPath, variable) };
  const set = Object.entries(sources).find(
    ([, value]) => value !== undefined && !OFF.has(value.toLowerCase()),
  );
  if (set === undefined) return { name, status: 'ok', detail: 'has no memory cap of its own' };
  return {
    name,
    status: 'warn',
    detail: `${variable}=${set[1]} (${set[0]}): it moves commands into a cgroup of its own with a hard limit`,
    fix: `Set ${variable}=off.`,
  };
}

/** A variable of the `env` of Claude Code's settings; undefined if there is none, or no such file. */
function settingOf(path: string, variable: string): string | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))?.env?.[variable];
    return value === undefined ? undefined : String(value);
  } catch {
    return undefined;
  }
}

const styles: Readonly<Record<CheckStatus, Style>> = {
  ok: 'green',
  note: 'cyan',
  warn: 'yellow',
  fail: 'red',
};

function describe({ checks }: DoctorReport): string[] {
  const columns = [{ title: 'status' }, { title: 'name' }, { title: 'detail' }];
  const rows = checks.flatMap(({ name, status, detail, fix }) => [
    [{ text: status, style: styles[status] }, { text: plain(name) }, { text: plain(detail) }],
    ...(fix === undefined ? [] : [[{ text: '' }, { text: '' }, { text: `fix: ${plain(fix)}` }]]),
  ]);
  return table(columns, rows, { titles: false, cut: false });
}

function exitOf({ checks }: DoctorReport): number {
  if (checks.some(({ status }) => status === 'fail')) return exit.failed;
  return checks.some(({ status }) => status === 'warn') ? exit.degraded : exit.ok;
}
