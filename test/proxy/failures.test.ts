// SPDX-License-Identifier: Apache-2.0
// What a client sees when its turn fails, hangs, waits or is given up; and that nothing is left of it.
import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { SimulatedClock } from '../../daemon/sim/clock.ts';
import { API_CASES, type ApiCase, CHAT, MESSAGES, RESPONSES } from './answers.ts';
import { ask, held, type Lab, nextChunk, open, readAll, startProxy, turn } from './lab.ts';
import { type Answer, JSON_HEADERS, type Script, STREAM_HEADERS, StandIn, type Step } from './upstream.ts';

const SECOND = 1000;

/** A proxy whose scheduler has a clock that stands still until the test moves it. */
async function simulated(t: TestContext, script: Script, options: Parameters<typeof startProxy>[2] = {}) {
  const upstream = await StandIn.start(t, script);
  const clock = new SimulatedClock(Date.parse('2026-11-21T00:00:00Z'));
  const lab = await startProxy(t, upstream, { ...options, clock });
  const pass = (ms: number): void => clock.run(clock.now() + ms);
  return { upstream, clock, lab, pass };
}

const stream = ({ events }: ApiCase, ...steps: Step[]): Answer => ({
  headers: STREAM_HEADERS,
  steps: steps.length > 0 ? steps : events,
});

const error = (
  status: number,
  headers: string[] = [],
  body = '{"type":"error","error":{"message":"no"}}',
): Answer => ({
  status,
  headers: [...JSON_HEADERS, ...headers],
  steps: [body],
});

/** The data of the last event of a stream. */
function lastData(body: Buffer) {
  const events = body.toString().split('\n\n').filter(Boolean);
  const line = events
    .at(-1)
    ?.split('\n')
    .find((each) => each.startsWith('data: '));
  return JSON.parse(line?.slice(6) ?? 'null');
}

/** The type of the API's own error in a body or an event. */
function errorType(api: ApiCase, parsed: { error?: { type: string }; code?: string; type?: string }) {
  if (api === RESPONSES && parsed.code !== undefined) return parsed.code;
  return parsed.error?.type;
}

/** Lets everything that is on its way in this process arrive. */
async function settled(lab: Lab, queued: (lab: Lab) => boolean): Promise<void> {
  for (let turns = 0; !queued(lab); turns += 1) {
    if (turns > 100_000) throw new Error('it never came to that');
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const delayed = ({ scheduler }: Lab) => scheduler.snapshot().delayed;

for (const api of API_CASES) {
  suite(api.path, () => {
    for (const status of [408, 409, 429, 500, 503, 529]) {
      test(`a ${status} is waited out, and the client sees only the answer after it`, async (t) => {
        const { upstream, lab, pass } = await simulated(t, (_request, index) =>
          index === 0 ? error(status, ['retry-after', '7']) : stream(api),
        );
        const response = ask(lab.url, turn(api, true));
        await settled(lab, (lab) => delayed(lab) + lab.scheduler.snapshot().queued > 0);
        pass(60 * SECOND);
        const { status: seen, body } = await response;
        assert.equal(seen, 200);
        assert.equal(body.toString(), api.events.join(''));
        assert.deepEqual(upstream.received[1]?.body, upstream.received[0]?.body);
        assert.equal(upstream.received.length, 2);
        assert.equal(held(lab), 0);
      });
    }

    test('what fails for good reaches the client as it was, with a word on retries', async (t) => {
      const { upstream, lab, clock } = await simulated(t, () => error(500, ['request-id', 'r1']));
      const response = ask(lab.url, turn(api, true));
      let done = false;
      response.finally(() => {
        done = true;
      });
      await settled(lab, (lab) => {
        if (delayed(lab) > 0) clock.run(clock.now() + 30 * SECOND);
        return done;
      });
      const { status, headers, body } = await response;
      assert.equal(status, 500);
      assert.equal(headers['request-id'], 'r1');
      assert.equal(headers['x-should-retry'], 'false');
      assert.equal(body.toString(), '{"type":"error","error":{"message":"no"}}');
      assert.equal(upstream.received.length, 3);
      assert.equal(held(lab), 0);
    });

    test('a request that the upstream keeps is never sent twice', async (t) => {
      const { upstream, lab } = await simulated(t, () => error(500));
      const asked = turn(api, true);
      const body = JSON.stringify({ ...JSON.parse(String(asked.body)), store: true });
      const { status } = await ask(lab.url, { ...asked, body });
      assert.equal(status, 500);
      assert.equal(upstream.received.length, 1);
    });

    test('a connection that fails is tried again; a dead upstream is a 502', async (t) => {
      const { upstream, lab, clock } = await simulated(t, (_request, index) =>
        index === 0 ? 'reset' : stream(api),
      );
      const first = ask(lab.url, turn(api, true));
      await settled(lab, (lab) => delayed(lab) > 0);
      clock.run(clock.now() + 30 * SECOND);
      assert.equal((await first).status, 200);
      await upstream.close();
      const second = ask(lab.url, turn(api, true, 'again'));
      let done = false;
      second.finally(() => {
        done = true;
      });
      await settled(lab, (lab) => {
        if (delayed(lab) > 0) clock.run(clock.now() + 30 * SECOND);
        return done;
      });
      const { status, body } = await second;
      assert.equal(status, 502);
      assert.equal(
        errorType(api, JSON.parse(body.toString())),
        api === MESSAGES ? 'api_error' : 'server_error',
      );
      assert.equal(held(lab), 0);
    });

    test('cut within an event: the client gets whole events and an error of its API', async (t) => {
      const whole = api.events.slice(0, 3).join('');
      const upstream = await StandIn.start(t, () =>
        stream(api, whole + String(api.events[3]).slice(0, 20), 'cut'),
      );
      const lab = await startProxy(t, upstream);
      const { status, body, complete } = await ask(lab.url, turn(api, true));
      assert.equal(status, 200);
      assert.ok(complete);
      assert.ok(body.toString().startsWith(whole));
      assert.equal(errorType(api, lastData(body)), api === MESSAGES ? 'api_error' : 'server_error');
      const { scheduler } = lab;
      assert.equal(upstream.received.length, 1, 'what was seen is not asked for again');
      assert.equal(scheduler.counters().failed, 1);
      assert.equal(held(lab), 0);
    });

    test('cut before anything but keep-alives: asked again, unseen', async (t) => {
      const { upstream, lab, pass } = await simulated(t, (_request, index) =>
        index === 0 ? stream(api, api.ping, api.ping, 'cut') : stream(api),
      );
      const response = ask(lab.url, turn(api, true));
      await settled(lab, (lab) => delayed(lab) > 0);
      pass(30 * SECOND);
      const { body, complete } = await response;
      assert.equal(body.toString(), api.ping + api.ping + api.events.join(''));
      assert.ok(complete);
      assert.equal(upstream.received.length, 2);
      assert.equal(lab.scheduler.counters().recovered, 1);
    });

    test('a whole answer that is cut breaks the connection, as it would have been', async (t) => {
      const upstream = await StandIn.start(t, () => ({ steps: [api.whole.slice(0, 30), 'cut'] }));
      const lab = await startProxy(t, upstream);
      const { body, complete } = await ask(lab.url, turn(api, false));
      assert.equal(body.toString(), api.whole.slice(0, 30));
      assert.equal(complete, false);
      assert.equal(held(lab), 0);
    });

    test('silent before the first byte: ended by its timer, twice asked again, then an error', async (t) => {
      const { upstream, lab, pass } = await simulated(t, () => 'silent');
      const response = ask(lab.url, turn(api, true));
      await upstream.count(1);
      pass(120 * SECOND - 1);
      assert.equal(lab.scheduler.counters().reaped, 0);
      pass(1);
      assert.equal(lab.scheduler.counters().reaped, 1);
      assert.equal(await upstream.received[0]?.over, false, 'the abandoned request is closed');
      pass(10 * SECOND);
      await upstream.count(2);
      pass(120 * SECOND);
      let done = false;
      response.finally(() => {
        done = true;
      });
      await settled(lab, () => {
        pass(10 * SECOND);
        return done;
      });
      const { status, headers, body } = await response;
      assert.equal(status, 504);
      assert.equal(headers['x-should-retry'], 'false');
      assert.equal(
        errorType(api, JSON.parse(body.toString())),
        api === MESSAGES ? 'timeout_error' : 'server_error',
      );
      assert.equal(held(lab), 0);
    });

    test('silent within the stream: ended with an error event', async (t) => {
      const { upstream, lab, pass } = await simulated(t, () =>
        stream(api, ...api.events.slice(0, 3), 'stall'),
      );
      const response = await open(lab.url, turn(api, true));
      const expected = api.events.slice(0, 3).join('');
      let seen = '';
      while (seen.length < expected.length) seen += (await nextChunk(response)).toString();
      assert.equal(seen, expected);
      pass(120 * SECOND - 1);
      assert.equal(lab.scheduler.counters().reaped, 0);
      pass(1);
      const { body, complete } = await readAll(response);
      assert.ok(complete);
      assert.equal(errorType(api, lastData(body)), api === MESSAGES ? 'timeout_error' : 'server_error');
      assert.equal(await upstream.received[0]?.over, false);
      assert.equal(held(lab), 0);
    });

    test('kept alive without content: left alone for as long as pings may do, not longer', async (t) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const [first, second] = gates as [PromiseWithResolvers<void>, PromiseWithResolvers<void>];
      const steps = [
        String(api.events[0]),
        { after: first.promise },
        api.ping,
        { after: second.promise },
        api.ping,
        { after: promise },
      ];
      const { lab, pass } = await simulated(t, () => stream(api, ...steps));
      const response = await open(lab.url, turn(api, true));
      await nextChunk(response);
      for (const gate of gates) {
        pass(100 * SECOND);
        gate.resolve();
        await nextChunk(response);
      }
      assert.equal(lab.scheduler.counters().reaped, 0, 'a ping within every 120 s');
      pass(80 * SECOND - 1);
      assert.equal(lab.scheduler.counters().reaped, 0);
      pass(1);
      assert.equal(lab.scheduler.counters().reaped, 1, 'no content for 280 s');
      resolve();
      await readAll(response);
      assert.equal(held(lab), 0);
    });

    test('no lane for 240 s: refused with Retry-After, in time for every client', async (t) => {
      const { upstream, lab, pass } = await simulated(t, () => 'silent', {
        scheduler: { lanes: { fixed: 1 }, reaper: { firstByteMs: 3600 * SECOND } },
      });
      const running = open(lab.url, turn(api, true)).catch(() => {});
      await upstream.count(1);
      const waiting = ask(lab.url, turn(api, true, 'other'));
      await settled(lab, ({ scheduler }) => scheduler.snapshot().queued === 1);
      pass(240 * SECOND);
      const { status, headers, body } = await waiting;
      assert.equal(status, 529);
      assert.match(String(headers['retry-after']), /^\d+$/);
      assert.ok(errorType(api, JSON.parse(body.toString())));
      assert.equal(upstream.received.length, 1);
      await lab.proxy.close(0);
      await running;
    });

    test('a long wait in the open: pings, then the answer', async (t) => {
      const gate = Promise.withResolvers<void>();
      const { upstream, lab, pass } = await simulated(
        t,
        (_request, index) =>
          index === 0 ? stream(api, { after: gate.promise }, ...api.events) : stream(api),
        {
          scheduler: { lanes: { fixed: 1 } },
          settings: { earlyStream: { afterMs: 15 * SECOND, pingMs: 10 * SECOND } },
        },
      );
      const first = ask(lab.url, turn(api, true));
      await upstream.count(1);
      const second = open(lab.url, turn(api, true, 'other'));
      await settled(lab, ({ scheduler }) => scheduler.snapshot().queued === 1);
      pass(15 * SECOND);
      const response = await second;
      assert.equal(response.statusCode, 200);
      assert.equal(response.headers['content-type'], 'text/event-stream');
      pass(10 * SECOND);
      gate.resolve();
      await first;
      const { body, complete } = await readAll(response);
      assert.ok(complete);
      const ping = api === MESSAGES ? 'event: ping\ndata: {"type": "ping"}\n\n' : ': ping\n\n';
      assert.equal(body.toString(), ping + ping + api.events.join(''));
    });

    test('an error after a wait in the open comes as an event', async (t) => {
      const { upstream, lab, pass } = await simulated(
        t,
        (_request, index) => (index === 0 ? 'silent' : error(401, [], '{"error":{"message":"bad key"}}')),
        {
          scheduler: { lanes: { fixed: 1 } },
          settings: { earlyStream: { afterMs: 15 * SECOND, pingMs: 10 * SECOND } },
        },
      );
      const first = open(lab.url, turn(api, true));
      await upstream.count(1);
      const second = open(lab.url, turn(api, true, 'other'));
      await settled(lab, ({ scheduler }) => scheduler.snapshot().queued === 1);
      pass(15 * SECOND);
      (await first).destroy();
      const { body } = await readAll(await second);
      const data = lastData(body);
      assert.equal(api === RESPONSES ? data.message : data.error.message, 'bad key');
      await settled(lab, (lab) => held(lab) === 0);
    });
  });
}

test('an error event before any content is asked again, and passed on when nothing helps', async (t) => {
  const overloaded =
    'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n';
  let failures = 1;
  const { upstream, lab, clock } = await simulated(t, (_request, index) =>
    index < failures ? stream(MESSAGES, MESSAGES.ping, overloaded) : stream(MESSAGES),
  );
  const run = async (text: string) => {
    const response = ask(lab.url, turn(MESSAGES, true, text));
    let done = false;
    response.finally(() => {
      done = true;
    });
    await settled(lab, () => {
      clock.run(clock.now() + SECOND);
      return done;
    });
    return response;
  };
  const first = await run('one');
  assert.equal(lab.scheduler.counters().overloaded, 1);
  // The keep-alive may have gone out before the error came.
  assert.equal(first.body.toString().replace(MESSAGES.ping, ''), MESSAGES.events.join(''));
  assert.equal(upstream.received.length, 2);
  failures = Number.POSITIVE_INFINITY;
  const second = await run('two');
  assert.ok(second.body.toString().endsWith(MESSAGES.ping + overloaded));
  assert.equal(second.body.toString().replaceAll(MESSAGES.ping, ''), overloaded);
  assert.equal(held(lab), 0);
});

test('an error event after content is passed on as it is, and counted', async (t) => {
  const limited =
    'data: {"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}\n\n';
  const upstream = await StandIn.start(t, () => stream(CHAT, String(CHAT.events[0]), limited));
  const lab = await startProxy(t, upstream);
  const { body } = await ask(lab.url, turn(CHAT, true));
  assert.equal(body.toString(), CHAT.events[0] + limited);
  assert.equal(lab.scheduler.counters().rateLimited, 1);
  assert.equal(upstream.received.length, 1);
});

suite('clients that go', () => {
  const cases: [string, Script][] = [
    ['before the head', () => 'silent'],
    ['after the head', () => stream(MESSAGES, String(MESSAGES.events[0]), 'stall')],
  ];
  for (const [when, script] of cases) {
    test(`${when}: the upstream's request ends, and so does the lane`, async (t) => {
      const upstream = await StandIn.start(t, script);
      const lab = await startProxy(t, upstream);
      const controller = new AbortController();
      const asked = turn(MESSAGES, true);
      const gone = fetch(lab.url + asked.path, {
        method: 'POST',
        headers: asked.headers as Record<string, string>,
        body: String(asked.body),
        signal: controller.signal,
      }).then((response) => response.text());
      await upstream.count(1);
      assert.equal(held(lab), 2, 'a turn that runs and its lane');
      controller.abort();
      await assert.rejects(gone);
      assert.equal(await upstream.received[0]?.over, false);
      await settled(lab, (lab) => held(lab) === 0);
      assert.equal(lab.proxy.metrics.turns('aborted'), 1);
    });
  }

  test('while they wait: their place is free', async (t) => {
    const upstream = await StandIn.start(t, () => 'silent');
    const lab = await startProxy(t, upstream, { scheduler: { lanes: { fixed: 1 } } });
    const running = open(lab.url, turn(MESSAGES, true)).catch(() => {});
    await upstream.count(1);
    const controller = new AbortController();
    const { headers, body } = turn(MESSAGES, true, 'other');
    const init = { method: 'POST', headers: headers as Record<string, string>, body: String(body) };
    const waiting = fetch(`${lab.url}/v1/messages`, { ...init, signal: controller.signal });
    waiting.catch(() => {});
    await settled(lab, ({ scheduler }) => scheduler.snapshot().queued === 1);
    controller.abort();
    await settled(lab, ({ scheduler }) => scheduler.snapshot().queued === 0);
    await assert.rejects(waiting);
    assert.equal(upstream.received.length, 1);
    await lab.proxy.close(0);
    await running;
  });
});

test('a reader that does not read is no hang, and its response does not pile up here', async (t) => {
  const big = `data: ${'x'.repeat(64 * 1024 - 8)}\n\n`;
  const pieces = 2048;
  const { upstream, lab, pass } = await simulated(t, () => ({
    headers: STREAM_HEADERS,
    steps: Array.from({ length: pieces }, () => big),
  }));
  const response = await open(lab.url, turn(CHAT, true));
  // Until all buffers on the way are full: the upstream then gets rid of nothing more.
  let writtenBytes = -1;
  for (let still = 0; still < 2000; still += 1) {
    if (upstream.writtenBytes > writtenBytes) still = 0;
    writtenBytes = upstream.writtenBytes;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(
    writtenBytes < (pieces * big.length) / 4,
    `${writtenBytes} bytes of ${pieces * big.length} were taken`,
  );
  pass(3000 * SECOND);
  assert.equal(lab.scheduler.counters().reaped, 0);
  let readBytes = 0;
  for await (const chunk of response) readBytes += (chunk as Buffer).length;
  assert.equal(readBytes, pieces * big.length);
  assert.equal(held(lab), 0);
});

test('ten subagents at once wait for nothing but the upstream', async (t) => {
  const gate = Promise.withResolvers<void>();
  const upstream = await StandIn.start(t, () =>
    stream(MESSAGES, { after: gate.promise }, ...MESSAGES.events),
  );
  const lab = await startProxy(t, upstream);
  const asked = turn(MESSAGES, true);
  const answers = Array.from({ length: 10 }, (_, at) =>
    ask(lab.url, {
      ...asked,
      headers: { ...asked.headers, 'x-claude-code-agent-id': `a${at}`, 'x-claude-code-session-id': 's' },
    }),
  );
  // All ten are at the upstream before the first is answered.
  await upstream.count(10);
  gate.resolve();
  for (const { body } of await Promise.all(answers)) assert.equal(body.toString(), MESSAGES.events.join(''));
  const snapshot = lab.scheduler.snapshot();
  assert.equal(snapshot.queued, 0);
  assert.equal(held(lab), 0);
});

test('draining: what runs is finished, what is left after the bound is ended', async (t) => {
  const gate = Promise.withResolvers<void>();
  const upstream = await StandIn.start(t, (_request, index) =>
    index === 0
      ? stream(MESSAGES, String(MESSAGES.events[0]), { after: gate.promise }, ...MESSAGES.events.slice(1))
      : 'silent',
  );
  const lab = await startProxy(t, upstream);
  const first = await open(lab.url, turn(MESSAGES, true));
  await nextChunk(first);
  const closed = lab.proxy.close(60 * SECOND);
  await assert.rejects(ask(lab.url, turn(MESSAGES, true)), { code: 'ECONNREFUSED' });
  gate.resolve();
  assert.ok((await readAll(first)).complete);
  await closed;

  const other = await startProxy(t, upstream);
  const second = ask(other.url, turn(MESSAGES, true));
  second.catch(() => {});
  await upstream.count(2);
  await other.proxy.close(1);
  await assert.rejects(second);
  assert.equal(held(other), 0);
});

test('a storm on a limited upstream: nobody is told of a 429', async (t) => {
  const perMinute = 50;
  const windowMs = 60 * SECOND;
  const clock = new SimulatedClock(Date.parse('2026-11-21T00:00:00Z'));
  let windowAt = 0;
  let used = 0;
  const upstream = await StandIn.start(t, () => {
    if (clock.now() >= windowAt + windowMs) {
      windowAt = clock.now();
      used = 0;
    }
    used += 1;
    const resetMs = windowAt + windowMs - clock.now();
    if (used > perMinute) return error(429, ['retry-after', `${Math.ceil(resetMs / SECOND)}`]);
    const reset = new Date(clock.wallNow() + resetMs).toISOString();
    const limits = { limit: perMinute, remaining: perMinute - used, reset };
    const headers = Object.entries(limits).flatMap(([what, value]) => [
      `anthropic-ratelimit-requests-${what}`,
      `${value}`,
    ]);
    return { headers: [...JSON_HEADERS, ...headers], steps: [MESSAGES.whole] };
  });
  const lab = await startProxy(t, upstream, { clock });
  const agents = 11;
  const turnsOfEach = 12;
  const statuses: number[] = [];
  const agent = async (name: number) => {
    for (let round = 0; round < turnsOfEach; round += 1) {
      const asked = turn(MESSAGES, false, `${name} ${round}`);
      const headers = { ...asked.headers, 'x-claude-code-session-id': `s${name}` };
      statuses.push((await ask(lab.url, { ...asked, headers })).status);
    }
  };
  let over = false;
  const all = Promise.all(Array.from({ length: agents }, (_, at) => agent(at))).finally(() => {
    over = true;
  });
  // Time passes only while every turn waits for the limit, and not for this machine.
  while (!over) {
    const before = upstream.received.length + statuses.length;
    for (let turns = 0; turns < 50; turns += 1) await new Promise((resolve) => setImmediate(resolve));
    const { running } = lab.scheduler.snapshot();
    if (running === 0 && upstream.received.length + statuses.length === before)
      clock.run(clock.now() + SECOND);
  }
  await all;
  assert.equal(statuses.length, agents * turnsOfEach);
  assert.deepEqual(new Set(statuses), new Set([200]));
  // The first answers tell of the limit; from then on nothing is sent in vain but what was under way.
  const inVain = upstream.received.length - statuses.length;
  assert.ok(inVain <= statuses.length * 0.05, `${inVain} of ${upstream.received.length} were turned away`);
  assert.equal(held(lab), 0);
});

test('an account whose subscription is used up: its clients read why and until when, and the API is left alone', async (t) => {
  const wallMs = Date.parse('2026-11-21T00:00:00Z');
  const said = [
    ...['anthropic-ratelimit-unified-status', 'rejected'],
    ...['anthropic-ratelimit-unified-reset', String(wallMs / SECOND + 7_200)],
    ...['anthropic-ratelimit-unified-representative-claim', 'five_hour'],
    ...['anthropic-ratelimit-unified-5h-status', 'rejected'],
    ...['anthropic-ratelimit-unified-5h-utilization', '1.02'],
  ];
  const { upstream, lab, pass } = await simulated(t, (_request, index) =>
    index === 0 ? error(429, said) : stream(MESSAGES),
  );
  const first = await ask(lab.url, turn(MESSAGES, true));
  assert.equal(first.status, 429);
  assert.equal(first.body.toString(), '{"type":"error","error":{"message":"no"}}');

  const second = await ask(lab.url, turn(MESSAGES, true, 'another'));
  assert.equal(second.status, 429);
  assert.equal(upstream.received.length, 1);
  assert.equal(errorType(MESSAGES, JSON.parse(second.body.toString())), 'rate_limit_error');
  assert.equal(second.headers['retry-after'], '7200');
  assert.equal(second.headers['x-should-retry'], 'false');
  assert.equal(second.headers['anthropic-ratelimit-unified-representative-claim'], 'five_hour');

  const metrics = await lab.proxy.metrics.text();
  assert.match(metrics, /^agentrm_subscription_used_ratio\{window="5h"\} 1\.02$/m);
  assert.match(metrics, /^agentrm_subscriptions\{status="rejected"\} 1$/m);
  assert.match(metrics, /^agentrm_scheduler_refused_total\{reason="subscription"\} 1$/m);

  pass(301 * SECOND);
  assert.equal((await ask(lab.url, turn(MESSAGES, true, 'later'))).status, 200);
  assert.equal(held(lab), 0);
});

test('a client inside a frozen call is no slow reader: its turn hangs only by the time that it could read', async (t) => {
  const tcpOwner = () => ({ uid: 1000, cgroupId: 77 });
  const { lab, pass } = await simulated(t, () => 'silent', { tcpOwner, scheduler: { retry: { most: 0 } } });
  let ended = false;
  const response = ask(lab.url, turn(MESSAGES, true)).finally(() => {
    ended = true;
  });
  await settled(lab, ({ scheduler }) => scheduler.snapshot().running > 0);
  pass(60 * SECOND);
  lab.scheduler.setFrozen(new Set([77, 78]));
  pass(600 * SECOND);
  lab.scheduler.setFrozen(new Set([78]));
  pass(59 * SECOND);
  assert.equal(lab.scheduler.counters().reaped, 0);
  assert.equal(ended, false);
  pass(2 * SECOND);
  assert.equal((await response).status, 504);
});
