// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { ControlClient, socketPaths } from '../control/client.ts';

/** The options that every command has. */
export interface GlobalOptions {
  readonly json?: true;
  readonly socket?: string;
}

/**
 * A command's own file: adds its options and its action, which sets `process.exitCode` if it is not 0.
 * Name and summary stand in main.ts, so that --help need not load it.
 */
export interface CommandModule {
  readonly define: (command: Command) => void;
}

/** The client for the socket that was asked for, or for those where a daemon usually listens. */
export function clientOf({ socket }: GlobalOptions): ControlClient {
  return new ControlClient(socket === undefined ? socketPaths(process.env) : [socket]);
}
