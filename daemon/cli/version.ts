// SPDX-License-Identifier: Apache-2.0
import type { Command } from 'commander';
import { version } from '../version.ts';
import type { GlobalOptions } from './command.ts';
import { jsonLine, print } from './output.ts';

export function define(command: Command): void {
  command.action(async () => {
    const versions = { version: version(), node: process.versions.node };
    const { json } = command.optsWithGlobals<GlobalOptions>();
    await print(json ? jsonLine(versions) : `agentrm ${versions.version}, Node ${versions.node}`);
  });
}
