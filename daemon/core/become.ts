// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Client } from 'undici';
import { native } from '../kernel/native.ts';

/**
 * Gives root's rights up for good, in all threads (nptl(7)). Not done at the exec, since the code may be where only root
 * can read, as a checkout below /root is; so this is called when it is loaded. And a process that was root cannot be
 * traced by others of its user, who are not to see credentials.
 */
export async function become(uid: number, gid: number): Promise<void> {
  await loadTheRest();
  process.setgroups?.([]);
  process.setgid?.(gid);
  process.setuid?.(uid);
}

/** What would otherwise be loaded when it is first needed: the addon, and undici's parser, by a request to itself. */
async function loadTheRest(): Promise<void> {
  try {
    native();
  } catch {
    // Who needs it says so.
  }
  const server = createServer((_, response) => response.end());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const client = new Client(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  try {
    const { body } = await client.request({ method: 'GET', path: '/' });
    await body.dump();
  } finally {
    await client.close();
    server.close();
  }
}
