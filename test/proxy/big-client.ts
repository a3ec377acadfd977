// SPDX-License-Identifier: Apache-2.0
// A model API and a client with large bodies in a process of their own, so that what a test measures of its own
// process is not theirs: prints the API's URL, reads that of the proxy, sends the bodies, prints `done`.
import { createInterface } from 'node:readline';
import { MESSAGES } from './answers.ts';
import { ask, turn } from './lab.ts';
import { StandIn } from './upstream.ts';

const [, , count, bytes] = process.argv;
const upstream = new StandIn(() => ({ steps: [MESSAGES.whole] }));
await upstream.listen();
console.log(upstream.url);
for await (const url of createInterface({ input: process.stdin })) {
  for (let round = 0; round < Number(count); round += 1) {
    // Text with spaces and quotes: what costs most to look at.
    const text = 'say "hello" again. '.repeat(Math.floor(Number(bytes) / 22));
    const { status } = await ask(url, turn(MESSAGES, false, `${round} ${text}`));
    if (status !== 200) throw new Error(`status ${status}`);
  }
  console.log('done');
  break;
}
await upstream.close();
