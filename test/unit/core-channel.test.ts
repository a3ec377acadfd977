// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Channel } from '../../daemon/core/channel.ts';

const MiB = 2 ** 20;

/** Two ends of a connection. */
async function pair(t: TestContext): Promise<[Socket, Socket]> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const near = connect(typeof address === 'object' ? (address?.port ?? 0) : 0);
  const [far] = (await once(server, 'connection')) as [Socket];
  t.after(() => {
    near.destroy();
    far.destroy();
    server.close();
  });
  return [near, far];
}

test('messages arrive whole and in order, however they were cut', async (t) => {
  const [near, far] = await pair(t);
  const seen: string[] = [];
  const done = Promise.withResolvers<void>();
  new Channel(
    far,
    (kind, text) => {
      seen.push(`${kind} ${text}`);
      if (kind === 'stop') done.resolve();
    },
    () => {},
  );
  const large = 'x'.repeat(MiB);
  near.setNoDelay(true);
  for (const piece of ['sta', 'te {"a":', '"ü"}\nans', 'wer 1 ""\nstate ', large, '\nstop 5\n'])
    near.write(piece);
  await done.promise;
  assert.deepEqual(seen, ['state {"a":"ü"}', 'answer 1 ""', `state ${large}`, 'stop 5']);
});

for (const [name, bytes] of Object.entries({
  'no message': 'hello\n',
  'an unknown kind': 'format {}\n',
  'a message without an end': `state ${'x'.repeat(5 * MiB)}`,
})) {
  test(`${name}: the peer is cut off, and nothing of it is handed on`, async (t) => {
    const [near, far] = await pair(t);
    const seen: string[] = [];
    const ended = new Promise<void>((resolve) => new Channel(far, (kind) => seen.push(kind), resolve));
    near.on('error', () => {});
    near.write(bytes);
    await ended;
    assert.deepEqual(seen, []);
  });
}

test('what is too long, or for a peer that does not read, is dropped and counted', async (t) => {
  const [near, far] = await pair(t);
  far.pause();
  const channel = new Channel(
    near,
    () => {},
    () => {},
  );
  assert.equal(channel.send('state', 'x'.repeat(5 * MiB)), false);
  assert.equal(channel.dropped, 1);
  let sent = 0;
  while (channel.send('state', 'x'.repeat(MiB))) {
    sent += 1;
    assert.ok(sent < 1000, 'it takes as much as one likes');
  }
  assert.equal(channel.dropped, 2);
});
