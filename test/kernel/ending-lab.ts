// SPDX-License-Identifier: Apache-2.0
// One way in which a command can end, how it is brought about, and the words that several ways share.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import type { CallRecord } from '../../daemon/control/types.ts';
import { formatBytes } from '../../daemon/units.ts';
import { agentrmBash, loadProgram, type Ran, type TestDaemon } from '../lib/daemon.ts';

/** In one process, which takes the place of a shell that executes it. */
export const use = (mib: number) => `${loadProgram} --bytes ${mib}M threads 1`;
export const FOREVER = 'tail -f /dev/null';
/** Who enforces: root's daemon by BPF, or a user's own without it. */
export type Mode = 'bpf' | 'user';

/** What is said, without `agentrm: `, given the figures that the kernel had in the end. */
export type Line = string | ((record: CallRecord, mode: Mode) => string);

export interface Ending {
  readonly what: string;
  readonly command: string;
  readonly intent?: string;
  /** Exit status, or name of the signal; null: nobody was left who saw it. Default: 0. */
  readonly end?: number | NodeJS.Signals | null;
  readonly outcome?: CallRecord['outcome'];
  readonly line?: Line;
  /** There is a line in the record, but nobody left to read it. */
  readonly unread?: true;
  /** Why a user's own daemon is not asked for it. */
  readonly notUser?: string;
  /** What else runs it, or does something to it; the default only runs it. */
  readonly how?: (daemon: TestDaemon, ending: Ending) => Promise<Ran>;
}

/** As lines have it. */
export const peak = (record: CallRecord) => formatBytes(record.memory.peakBytes);
export const asks = (intent: string) => `; ask for more with AGENTRM_INTENT="${intent}"`;
export function plain(daemon: TestDaemon, { command, intent }: Ending): Promise<Ran> {
  const env: Record<string, string> = intent === undefined ? {} : { AGENTRM_INTENT: intent };
  return daemon.run(command, { env, cwd: daemon.dir });
}

interface Running {
  /** The wrapper; with a session the stand-in for an agent, which has a shell start the wrapper. */
  readonly child: ChildProcess;
  readonly cgroup: string;
}

/** Starts the command, does something to it once it runs, and waits for its end. */
export async function meanwhile(
  daemon: TestDaemon,
  { command, intent }: Ending,
  act: (running: Running) => void | Promise<void>,
  session?: string,
): Promise<Ran> {
  const before = (await daemon.events()).at(-1)?.seq ?? 0;
  const shell = `${command.includes('<gate') ? 'mkfifo gate; ' : ''}echo; ${command}`;
  const env = daemon.env({
    ...(intent === undefined ? {} : { AGENTRM_INTENT: intent }),
    ...(session === undefined ? {} : { AGENTRM_SESSION: session }),
  });
  const argv = JSON.stringify(['-c', '"$@"; :', 'sh', agentrmBash, '-c', shell]);
  const agent = `require('child_process').spawnSync('/bin/sh', ${argv}, { stdio: 'inherit' })`;
  // What is put before it executes it: the child is the one that is meant.
  const [file = '', ...args] = [
    ...daemon.agent,
    ...(session === undefined ? [agentrmBash, '-c', shell] : [process.execPath, '-e', agent]),
  ];
  const child = spawn(file, args, { env, cwd: daemon.dir, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = Promise.all([text(child.stderr), once(child, 'close')]);
  // Its first word, an empty line, says that it has been placed and runs.
  await once(child.stdout, 'data');
  child.stdout.resume();
  const started = await daemon.event((event) => event.kind === 'call-start' && event.seq > before);
  const cgroup = await cgroupOf(daemon, String(started.call));
  await act({ child, cgroup });
  const [stderr, [code, signal]] = await output;
  return { code, signal, stdout: '', stderr };
}

async function cgroupOf(daemon: TestDaemon, call: string): Promise<string> {
  const { sessions } = await daemon.get<{ sessions: { id: string; cgroup: string }[] }>('/v1/sessions');
  const session = (await daemon.liveCalls()).find(({ id }) => id === call)?.session;
  return `${sessions.find(({ id }) => id === session)?.cgroup}/${call}`;
}
