// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from 'node:http';
import { errnoOf, messageOf } from '../errors.ts';
import { request } from '../http.ts';
import { INCOMPLETE } from './types.ts';

/** `no-daemon`: nobody listens, or it has gone; `denied`: the socket or the daemon refuses this user. */
export type ControlFailure = 'no-daemon' | 'denied' | 'failed';

export class ControlError extends Error {
  readonly failure: ControlFailure;

  constructor(failure: ControlFailure, message: string) {
    super(message);
    this.name = 'ControlError';
    this.failure = failure;
  }
}

/** A daemon answers within milliseconds; one that says nothing for this long is stuck. */
const SILENT_MS = 5000;

/** The sockets that a caller without a choice of its own tries, in the order of agentrm-run. */
export function socketPaths(env: NodeJS.ProcessEnv): string[] {
  if (env.AGENTRM_SOCKET) return [env.AGENTRM_SOCKET];
  const own = env.XDG_RUNTIME_DIR ? [`${env.XDG_RUNTIME_DIR}/agentrm/agentrm.sock`] : [];
  return ['/run/agentrm/agentrm.sock', ...own];
}

export interface Line<T> {
  /** As the daemon wrote it. */
  readonly text: string;
  readonly value: T;
}

export interface LineOptions {
  readonly follow?: boolean;
  readonly onIncomplete?: (reason: string) => void;
}

/** Asks a daemon over its control socket; paths and answers are those of types.ts. */
export class ControlClient {
  readonly #sockets: readonly string[];

  /** @param sockets of which the first one that answers is used. */
  constructor(sockets: readonly string[]) {
    this.#sockets = sockets;
  }

  /** @throws ControlError */
  async get<T>(path: string): Promise<T> {
    let body = '';
    for await (const text of textOf(await this.#open(path, SILENT_MS))) body += text;
    return parse(body);
  }

  /**
   * An answer line by line.
   * @param options.follow wait for lines to come; the answer then ends only with the daemon, which is an error.
   * @param options.onIncomplete called at the end, with the reason, if the daemon could not give all.
   * @throws ControlError
   */
  async *lines<T>(path: string, options: LineOptions = {}): AsyncGenerator<Line<T>, void, void> {
    const { follow = false, onIncomplete } = options;
    let rest = '';
    const response = await this.#open(path, follow ? 0 : SILENT_MS);
    for await (const text of textOf(response)) {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) yield { text: line, value: parse(line) };
    }
    if (follow) throw gone();
    const reason = response.trailers[INCOMPLETE];
    if (reason !== undefined) onIncomplete?.(reason);
  }

  async #open(path: string, silentMs: number): Promise<IncomingMessage> {
    let first: unknown;
    for (const socket of this.#sockets) {
      try {
        return await ask(socket, path, silentMs);
      } catch (error) {
        if (!(error instanceof ControlError && error.failure === 'no-daemon')) throw error;
        first ??= error;
      }
    }
    throw first;
  }
}

/** @param silentMs how long the daemon may say nothing; 0: for ever. */
function ask(socketPath: string, path: string, silentMs: number): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path, timeout: SILENT_MS, agent: false });
    let answer: IncomingMessage | undefined;
    outgoing.on('timeout', () => {
      (answer ?? outgoing).destroy(new ControlError('failed', `the daemon at ${socketPath} does not answer`));
    });
    outgoing.on('error', (error) => reject(explain(error, socketPath)));
    outgoing.on('response', (response) => {
      answer = response;
      outgoing.setTimeout(silentMs);
      if (response.statusCode === 200) resolve(response);
      else refusal(response).then(reject, reject);
    });
    outgoing.end();
  });
}

function explain(error: Error, socketPath: string): ControlError {
  if (error instanceof ControlError) return error;
  switch (errnoOf(error)) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ECONNREFUSED':
      return new ControlError('no-daemon', `no daemon at ${socketPath}`);
    case 'EINVAL':
      return new ControlError(
        'no-daemon',
        `no daemon at ${socketPath}: longer than the path of a socket can be`,
      );
    case 'ECONNRESET':
    case 'EPIPE':
      return gone();
    case 'EACCES':
    case 'EPERM':
      return new ControlError('denied', `${socketPath}: permission denied`);
  }
  return new ControlError('failed', `${socketPath}: ${error.message}`);
}

async function refusal(response: IncomingMessage): Promise<ControlError> {
  let body = '';
  for await (const text of textOf(response)) body += text;
  const failure = response.statusCode === 403 ? 'denied' : 'failed';
  let reason: unknown;
  try {
    reason = JSON.parse(body).error;
  } catch {
    // Not from a daemon of ours: its status has to do.
  }
  return new ControlError(
    failure,
    typeof reason === 'string' ? reason : `the daemon answered ${response.statusCode}`,
  );
}

async function* textOf(response: IncomingMessage): AsyncGenerator<string, void, void> {
  try {
    for await (const chunk of response.setEncoding('utf8')) yield String(chunk);
  } catch (error) {
    throw error instanceof ControlError ? error : gone();
  }
}

function gone(): ControlError {
  return new ControlError('no-daemon', 'the daemon closed the connection');
}

function parse<T>(text: string): T {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ControlError('failed', `the daemon's answer is no JSON: ${messageOf(error)}`);
  }
}
