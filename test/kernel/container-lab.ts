// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { Container } from '../lib/container.ts';
import { agentrmBash, TestDaemon } from '../lib/daemon.ts';
import { lastRecord } from '../lib/record-of.ts';

export const MiB = 1024 * 1024;
export const limitBytes = 160 * MiB;

/** A daemon, and the containers of one test. */
export function setUp(config: string) {
  const daemon = new TestDaemon({ config });
  const containers: Container[] = [];
  before(() => daemon.start());
  after(async () => {
    for (const container of containers) await container.close();
    await daemon.close();
  });
  const start = (runtime: string): Promise<Container> => {
    const container = new Container(runtime, { limitBytes, socketDir: join(daemon.dir, 'run') });
    containers.push(container);
    return container.start();
  };
  const last = () => lastRecord(daemon);
  return { daemon, start, last };
}

/** Runs a command in a container as its agent would: the socket is where the system's is. */
export function call(container: Container, command: string, env: Record<string, string> = {}) {
  return container.exec([agentrmBash, '-c', command], env);
}

export const read = (container: Container, file: string) =>
  readFileSync(join(container.cgroup, file), 'utf8').trim();
const callDirectories = (container: Container) =>
  readdirSync(join(container.cgroup, 'agentrm'), { recursive: true, encoding: 'utf8' }).filter((path) =>
    /^s[0-9a-f]{12}\/c[0-9a-f]{12}$/.test(path),
  );

export const sessionsIn = (container: Container) =>
  readdirSync(join(container.cgroup, 'agentrm')).filter((name) => /^s[0-9a-f]{12}$/.test(name));

export type Lab = ReturnType<typeof setUp>;

/** A call in a container that ends with status 3 when told to, and where it is. */
export async function startWaiting({ daemon }: Lab, box: Container, session: string, before = '') {
  const go = join(daemon.dir, session);
  const command = `${before} until [ -e ${go} ]; do sleep 0.1; done; exit 3`;
  const ended = call(box, command, { AGENTRM_SESSION: session });
  const started = await daemon.event((event) => event.kind === 'call-start' && event.session === session);
  const id = String(started.call);
  const path = callDirectories(box).find((each) => each.endsWith(`/${id}`)) ?? 'none';
  return { id, directory: join(box.cgroup, 'agentrm', path), ended, go: () => writeFileSync(go, '') };
}
