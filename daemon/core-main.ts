// SPDX-License-Identifier: Apache-2.0
// The core as a child of agentrmd: proxy and scheduler, without privileges. It is told as whom to run by its arguments, if
// not as its parent, and how over file descriptor 3, and ends when that ends; see core/process.ts.
import { writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import type { ProxyConfig } from './config/proxy.ts';
import { become } from './core/become.ts';
import { Channel, type MessageKind } from './core/channel.ts';
import { type Core, startCore } from './core/core.ts';
import { type CallsMessage, type ClassMessage, CONFIGURED, type FrozenMessage } from './core/messages.ts';
import type { CoreSettings, CoreStart } from './core/process.ts';
import { messageOf } from './errors.ts';
import { createLogger, flushLog, type Log } from './log.ts';
import type { HostPressure } from './scheduler/types.ts';

const CHANNEL_FD = 3;
/** Time for the last lines of the log and the last state, over what draining may take. */
const END_MS = 1_000;

try {
  // The daemon is the last to be killed when the host has no memory left. What serves requests need not be.
  writeFileSync('/proc/self/oom_score_adj', '0');
} catch {
  // As it is, then: some sandboxes have no /proc.
}

const [uid, gid] = process.argv.slice(2).map(Number);
if (uid !== undefined && gid !== undefined) await become(uid, gid);

let core: Core | undefined;
let log: Log | undefined;
let ending = false;

const channel = new Channel(new Socket({ fd: CHANNEL_FD, readable: true, writable: true }), handle, () => {
  // A daemon that died is started again and starts a core of its own, which needs the port.
  exit(ending ? 0 : 1);
});

// A terminal's own signals reach all of the group: the daemon decides when this process ends.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});
process.on('SIGHUP', () => {});

function handle(kind: MessageKind, text: string): void {
  switch (kind) {
    case 'start':
      start(JSON.parse(text) as CoreStart).catch((error: unknown) => {
        channel.send('failed', JSON.stringify(messageOf(error)));
        channel.end();
      });
      break;
    case 'pressure':
      core?.setPressure(JSON.parse(text) as HostPressure);
      break;
    case 'calls':
      for (const [session, calls] of JSON.parse(text) as CallsMessage) core?.setCalls(session, calls);
      break;
    case 'frozen':
      core?.setFrozen(new Set(JSON.parse(text) as FrozenMessage));
      break;
    case 'configure':
      configure(text);
      break;
    case 'ask':
      answer(text);
      break;
    case 'stop':
      stop(Number(text));
      break;
  }
}

async function start({ config, logLevel, key, saved }: CoreStart): Promise<void> {
  log = createLogger({ level: logLevel }).child({ component: 'core' });
  core = await startCore({
    config: config as ProxyConfig,
    key,
    saved,
    log,
    keep: (state) => channel.send('state', state),
    onClass: (session, turnClass) => {
      const message: ClassMessage = { session, class: turnClass };
      channel.send('class', JSON.stringify(message));
    },
    onEvent: (event) => channel.send('event', JSON.stringify(event)),
  });
  channel.send('listening', String(core.port));
}

function configure(question: string): void {
  const space = question.indexOf(' ');
  let answer = CONFIGURED;
  try {
    const { config, logLevel } = JSON.parse(question.slice(space + 1)) as CoreSettings;
    if (core === undefined) throw new Error('it has not started yet');
    core.configure(config as ProxyConfig);
    if (log !== undefined) log.level = logLevel;
  } catch (error) {
    answer = messageOf(error);
  }
  channel.send('answer', `${question.slice(0, space)} ${JSON.stringify(answer)}`);
}

function answer(question: string): void {
  const [number, what, uid = ''] = question.split(' ');
  const reply = (text: string): void => {
    channel.send('answer', `${number} ${JSON.stringify(text)}`);
  };
  if (what === 'metrics') {
    core?.metrics().then(reply, () => reply(''));
  } else {
    reply(JSON.stringify(core?.monitor(uid === '' ? undefined : Number(uid)) ?? null));
  }
}

function stop(drainMs: number): void {
  ending = true;
  setTimeout(() => exit(1), drainMs + END_MS).unref();
  Promise.resolve(core?.close(drainMs)).then(
    () => channel.end(),
    () => exit(1),
  );
}

function exit(code: number): never {
  if (log !== undefined) flushLog(log);
  process.exit(code);
}
