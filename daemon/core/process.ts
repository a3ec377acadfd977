// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ProxyConfig } from '../config/proxy.ts';
import type { ProxyMonitor } from '../control/types.ts';
import type { Level, Log } from '../log.ts';
import { ownProgram, quietOptions } from '../own-program.ts';
import type { HostPressure, TurnClass } from '../scheduler/types.ts';
import { Channel, type MessageKind } from './channel.ts';
import {
  type CallsMessage,
  CONFIGURED,
  type CoreEvent,
  type FrozenMessage,
  parseClass,
  parseEvent,
  parseMonitor,
} from './messages.ts';
import { Questions } from './questions.ts';
import type { StateFile } from './state-file.ts';

/** Clients that find nobody listening try again within half a second. */
const FIRST_RESTART_MS = 100;
const LONGEST_RESTART_MS = 10_000;
/** A core that ran for so long did not die of its start. */
const STEADY_MS = 30_000;
/** After what draining may take: then the core hangs. */
const END_MS = 2_000;

/** How a core is to run, from its start or from now on. */
export interface CoreSettings {
  readonly config: ProxyConfig;
  readonly logLevel: Level;
}

/** What a core is started with. */
export interface CoreStart extends CoreSettings {
  /** In base64. */
  readonly key: string;
  readonly saved: string | null;
}

export interface CoreProcessOptions extends CoreSettings {
  /** As whom it runs; null: as this process. */
  readonly ids: { readonly uid: number; readonly gid: number } | null;
  readonly state: StateFile;
  readonly log: Log;
  /** A session has shown its class, or another one. */
  readonly onClass: (session: string, turnClass: TurnClass) => void;
  readonly onEvent: (event: CoreEvent) => void;
  /** It listens (again). */
  readonly onListening: (port: number) => void;
  /** Other settings are in force, or cannot be: the old ones are then. */
  readonly onConfigured: (problem: string | null) => void;
  /** It does not run any more; it is started again unless the process is closed. */
  readonly onDown: (reason: string) => void;
}

/**
 * The core as a process of its own: whatever it does or reads, its parent reads short lines of it and no more.
 * What it wants kept is kept here, without being looked at, and given to the next one.
 */
export class CoreProcess {
  readonly #options: CoreProcessOptions;
  /** The last that a core has taken; the first ones until one has. */
  #settings: CoreSettings;
  /** Asked for since, and not known to be taken or refused; null: none. */
  #wanted: CoreSettings | null = null;
  /** What the core that runs was started with. */
  #given: CoreSettings;
  /** Whether it has been asked to take others and has not answered yet. */
  #offered = false;
  readonly #questions = new Questions((kind, text) => this.#channel?.send(kind, text) === true);
  #child: ChildProcess | undefined;
  #channel: Channel | undefined;
  #timer: NodeJS.Timeout | undefined;
  #restartMs = FIRST_RESTART_MS;
  #starts = 0;
  #port: number | undefined;
  #reason = '';
  #closing = false;

  constructor(options: CoreProcessOptions) {
    this.#options = options;
    const { config, logLevel } = options;
    this.#settings = { config, logLevel };
    this.#given = this.#settings;
  }

  /** In force, or as the next one will be started. */
  get config(): ProxyConfig {
    return this.#settings.config;
  }

  /** Undefined while it does not run. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Undefined while it does not listen. */
  get port(): number | undefined {
    return this.#port;
  }

  /** Starts after the first. */
  get restarts(): number {
    return Math.max(0, this.#starts - 1);
  }

  start(): void {
    if (this.#closing) return;
    const { ids, state } = this.#options;
    this.#starts += 1;
    const startedMs = performance.now();
    const script = fileURLToPath(ownProgram('core-main'));
    const become = ids === null ? [] : [String(ids.uid), String(ids.gid)];
    const child = spawn(process.execPath, [...nodeOptions(), script, ...become], {
      stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
      cwd: '/',
    });
    this.#child = child;
    this.#reason = '';
    child.once('error', (error) => {
      this.#reason = error.message;
      // Without a pid there will be no exit.
      if (child.pid === undefined) this.#ended(child, startedMs);
    });
    child.once('exit', (code, signal) => {
      if (this.#reason === '') this.#reason = signal ?? `exit status ${code}`;
      this.#ended(child, startedMs);
    });
    const socket = child.stdio[3] as Socket | null | undefined;
    if (socket == null) return;
    const channel = new Channel(
      socket,
      (kind, text) => this.#handle(kind, text),
      // A core that nobody can talk to is of no use.
      () => child.kill('SIGKILL'),
    );
    this.#channel = channel;
    const start: CoreStart = { ...this.#given, key: state.key.toString('base64'), saved: state.newest };
    channel.send('start', JSON.stringify(start));
  }

  setPressure(pressure: HostPressure): void {
    if (this.#port !== undefined) this.#channel?.send('pressure', JSON.stringify(pressure));
  }

  /** @returns whether it is on its way: not while the core does not listen. */
  setCalls(calls: CallsMessage): boolean {
    return this.#port !== undefined && this.#channel?.send('calls', JSON.stringify(calls)) === true;
  }

  /** @returns as {@link setCalls}. */
  setFrozen(places: FrozenMessage): boolean {
    return this.#port !== undefined && this.#channel?.send('frozen', JSON.stringify(places)) === true;
  }

  /**
   * Puts other settings in force, in this core and those to come. What becomes of them is told by `onConfigured`, once
   * for the newest.
   * @returns whether they are on their way: a core that does not listen yet is offered them when it does.
   */
  configure(settings: CoreSettings): boolean {
    this.#wanted = settings;
    this.#offer();
    return this.#offered;
  }

  /** @returns empty if the core does not answer. */
  metrics(): Promise<string> {
    return this.#ask('metrics');
  }

  /**
   * @param uid whose sessions; undefined: everybody's.
   * @returns null if the core does not answer.
   */
  async monitor(uid: number | undefined): Promise<ProxyMonitor | null> {
    return parseMonitor(await this.#ask(`monitor ${uid ?? ''}`));
  }

  /** Lets it drain, and ends it. */
  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (child === undefined) return;
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    const { drainMs } = this.#settings.config;
    this.#channel?.send('stop', String(drainMs));
    const timer = setTimeout(() => child.kill('SIGKILL'), drainMs + END_MS);
    await exited;
    clearTimeout(timer);
  }

  #ask(what: string): Promise<string> {
    return this.#port === undefined ? Promise.resolve('') : this.#questions.ask(what);
  }

  /** One at a time, whatever their number: a core that is busy answers when it can. */
  #offer(): void {
    const settings = this.#wanted;
    if (settings === null || this.#offered || this.#port === undefined) return;
    this.#offered = true;
    this.#questions.put('configure', JSON.stringify(settings), (answer) => {
      this.#offered = false;
      // The next core is offered them.
      if (answer === '') return;
      if (answer === CONFIGURED) this.#settings = settings;
      if (this.#wanted === settings) this.#configured(answer === CONFIGURED ? null : answer);
      else this.#offer();
    });
  }

  #configured(problem: string | null): void {
    this.#wanted = null;
    this.#options.onConfigured(problem);
  }

  #listens(port: number): void {
    this.#port = port;
    this.#settings = this.#given;
    this.#options.onListening(port);
    if (this.#given === this.#wanted) this.#configured(null);
    else this.#offer();
  }

  #handle(kind: MessageKind, text: string): void {
    switch (kind) {
      case 'listening':
        this.#listens(Number(text));
        break;
      case 'failed':
        this.#reason = textOf(text);
        break;
      case 'state':
        this.#options.state.keep(text);
        break;
      case 'class': {
        const told = parseClass(text);
        if (told !== undefined) this.#options.onClass(told.session, told.class);
        break;
      }
      case 'event': {
        const event = parseEvent(text);
        if (event !== undefined) this.#options.onEvent(event);
        break;
      }
      case 'answer': {
        const space = text.indexOf(' ');
        this.#questions.answered(Number(text.slice(0, space)), textOf(text.slice(space + 1)));
        break;
      }
    }
  }

  #ended(child: ChildProcess, startedMs: number): void {
    if (this.#child !== child) return;
    this.#child = undefined;
    this.#channel?.destroy();
    this.#channel = undefined;
    // What a core cannot start with (any more) is what others are asked for instead of; but these may be no better.
    const tryWanted = this.#port === undefined && this.#given === this.#settings && this.#wanted !== null;
    this.#port = undefined;
    this.#questions.end();
    this.#given = (tryWanted ? this.#wanted : null) ?? this.#settings;
    if (this.#closing) return;
    if (performance.now() - startedMs > STEADY_MS) this.#restartMs = FIRST_RESTART_MS;
    this.#options.onDown(this.#reason);
    this.#timer = setTimeout(() => this.start(), this.#restartMs);
    this.#restartMs = Math.min(LONGEST_RESTART_MS, this.#restartMs * 2);
  }
}

/**
 * What this process was started with to be quiet. What is for its own memory is not for the core, in which much is
 * short-lived: 500 streams take 140 MiB with 4 MiB for what is young, 156 with 1 and 188 with V8's own 16.
 */
function nodeOptions(): string[] {
  return ['--max-semi-space-size=4', ...quietOptions()];
}

/** A JSON string of a process that is not trusted. */
function textOf(json: string): string {
  try {
    const text: unknown = JSON.parse(json);
    return typeof text === 'string' ? text : '';
  } catch {
    return '';
  }
}
