// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import type { TestDaemon } from '../lib/daemon.ts';

/** A connection to a daemon's socket; errors are the test's to see as an early end. */
export async function open(daemon: TestDaemon): Promise<Socket> {
  const socket = connect(daemon.socket);
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

/** Everything that comes until the daemon closes the connection. */
export async function heard(socket: Socket): Promise<string> {
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  if (!socket.closed) await once(socket, 'close').catch(() => {});
  return text;
}

/** What a daemon answers to these bytes before it closes the connection. */
export async function tell(daemon: TestDaemon, bytes: string | Buffer): Promise<string> {
  const socket = await open(daemon);
  const answer = heard(socket);
  socket.write(bytes);
  return answer;
}

/** Value of a counter or gauge in /metrics. */
export async function metric(daemon: TestDaemon, name: string): Promise<number> {
  const text = await daemon.text('/metrics');
  const line = text.split('\n').find((entry) => entry.startsWith(`${name} `));
  if (line === undefined) throw new Error(`no metric ${name}`);
  return Number(line.slice(name.length + 1));
}

/** Connections that were closed on the peer for a reason. */
export function refused(daemon: TestDaemon, reason: string): Promise<number> {
  return metric(daemon, `agentrm_connections_refused_total{reason="${reason}"}`);
}

/** How many descriptors the daemon has open. */
export function descriptors(daemon: TestDaemon): number {
  return readdirSync(`/proc/${daemon.pid}/fd`).length;
}
