// SPDX-License-Identifier: Apache-2.0
// What a stream writes counts towards the limit while it is written, though the API tells it at the end.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { encodeEvent, messageEvents } from '../clients/anthropic-events.ts';
import { MESSAGES } from './answers.ts';
import { ask, type Lab, nextChunk, open, readAll, startProxy, turn } from './lab.ts';
import { STREAM_HEADERS, StandIn } from './upstream.ts';

const TOKENS = 1_000;
const LIMIT = 100_000;
const limits = ['anthropic-ratelimit-output-tokens-limit', `${LIMIT}`];

const written = (lab: Lab): number => {
  const bucket = lab.scheduler
    .snapshot()
    .upstreams[0]?.buckets.find(({ resource }) => resource === 'outputTokens');
  return LIMIT - (bucket?.available ?? LIMIT) - (bucket?.reserved ?? 0);
};

async function started(t: TestContext) {
  const events = messageEvents({
    id: 'msg_1',
    model: 'claude-sonnet-4-20250514',
    content: [{ type: 'text', text: 'word '.repeat(TOKENS) }],
    inputTokens: 10,
    outputTokens: TOKENS,
  }).map(encodeEvent);
  const half = Math.floor(events.length / 2);
  const { promise: gate, resolve: goOn } = Promise.withResolvers<void>();
  const upstream = await StandIn.start(t, (_request, index) => ({
    headers: [...STREAM_HEADERS, ...limits],
    steps: [...events.slice(0, half), ...(index === 0 ? [] : [{ after: gate }]), ...events.slice(half)],
  }));
  return { lab: await startProxy(t, upstream), goOn, halfBytes: events.slice(0, half).join('').length };
}

/** Sends the turn that stops in the middle, and reads as far as it goes. */
async function readHalf(lab: Lab, halfBytes: number) {
  const response = await open(lab.url, turn(MESSAGES, true, 'second'));
  for (let bytes = 0; bytes < halfBytes; ) bytes += (await nextChunk(response)).length;
  return response;
}

test('an answer counts as it grows, once one has told what its events hold', async (t) => {
  const { lab, goOn, halfBytes } = await started(t);
  assert.equal((await ask(lab.url, turn(MESSAGES, true, 'first'))).status, 200);
  const before = written(lab);
  const response = await readHalf(lab, halfBytes);
  const half = written(lab) - before;
  assert.ok(half > 0.4 * TOKENS && half < 0.6 * TOKENS, `${half} of ${TOKENS}`);
  goOn();
  assert.ok((await readAll(response)).complete);
  // What the API has told counts in the end; the bucket refills a little meanwhile.
  const whole = written(lab) - before;
  assert.ok(whole <= TOKENS && whole > 0.9 * TOKENS, `${whole} of ${TOKENS}`);
});

test('of one whose client leaves, what was written until then', async (t) => {
  const { lab, halfBytes } = await started(t);
  assert.equal((await ask(lab.url, turn(MESSAGES, true, 'first'))).status, 200);
  const before = written(lab);
  (await readHalf(lab, halfBytes)).destroy();
  while (lab.scheduler.snapshot().running > 0) await new Promise((resolve) => setImmediate(resolve));
  const left = written(lab) - before;
  assert.ok(left > 0.4 * TOKENS && left < 0.6 * TOKENS, `${left} of ${TOKENS}`);
});
