// SPDX-License-Identifier: Apache-2.0
import * as z from 'zod';
import { isProxyUrl } from '../proxy/via.ts';
import { QUEUE_POLICIES } from '../scheduler/policies.ts';
import { quoteWord } from '../toolcall/intent.ts';
import {
  duration,
  flag,
  listenAddress,
  offOrDuration,
  offOrPath,
  offOrWhole,
  size,
  whole,
} from './values.ts';

/*
 * The settings of the proxy and its scheduler. What is not here, such as quanta and shares of the levels, has
 * no other value that somebody could know to be better for a host; it stands in scheduler/settings.ts.
 */

const upstream = (url: string, whose: string, why: string) =>
  z
    .strictObject({
      url: z
        .string()
        .refine(isBaseUrl, {
          error: ({ input }) => refusalOf(input, 'not an http or https URL without user and query'),
        })
        .prefault(url)
        .describe(why),
      via: z
        .string()
        .refine((value) => value === 'environment' || value === 'direct' || isProxyUrl(URL.parse(value)), {
          error: ({ input }) => refusalOf(input, 'not environment, direct or the URL of an HTTP proxy'),
        })
        .prefault('environment')
        .describe(
          "The HTTP proxy in between. environment: HTTPS_PROXY or HTTP_PROXY by the URL's scheme, and NO_PROXY, as " +
            'agentrmd itself has them: none for this machine, and a service has only what its unit sets. direct: none.\n' +
            'via: http://user:password@proxy.example:3128',
        ),
      ca: offOrPath()
        .prefault('off')
        .describe(
          'A file of certificates (PEM) to trust besides those that Node brings and NODE_EXTRA_CA_CERTS names: of a ' +
            'gateway of your own, or of a proxy that looks into TLS. The core reads it as proxy.user.',
        ),
    })
    .prefault({})
    .describe(whose);

/** The reason with the value before it, unless that may hold a password or a key. */
function refusalOf(input: unknown, reason: string): string {
  const value = String(input);
  return /[@?]/.test(value) ? reason : `${quoteWord(value)}: ${reason}`;
}

function isBaseUrl(value: string): boolean {
  const url = URL.parse(value);
  return (
    (url?.protocol === 'http:' || url?.protocol === 'https:') &&
    url.search === '' &&
    url.hash === '' &&
    url.username === '' &&
    url.password === ''
  );
}

const upstreams = z
  .strictObject({
    anthropic: upstream(
      'https://api.anthropic.com',
      'For /v1/messages, and for what has anthropic-version or x-api-key among its headers.',
      'The API itself, or a gateway that speaks its language. AGENTRM_UPSTREAM_ANTHROPIC in the environment ' +
        'goes first.',
    ),
    openai: upstream(
      'https://api.openai.com',
      'For everything else.',
      'With or without /v1 at its end. AGENTRM_UPSTREAM_OPENAI in the environment goes first.',
    ),
  })
  .prefault({})
  .describe('Where requests go.');

const queue = z
  .strictObject({
    mode: z
      .enum(['hold', 'early-stream'])
      .prefault('hold')
      .describe(
        'hold: a turn that waits hears nothing until the upstream answers, with the real status and headers. ' +
          'early-stream: a stream is begun after a while and kept alive with pings, for clients behind a ' +
          'middlebox that cuts what is silent for a minute; errors then come as events.',
      ),
    wait: duration()
      .prefault('240s')
      .describe(
        'The longest wait for a lane. Claude Code gives up after 300.0 s; then 529 with Retry-After, and the ' +
          'place is kept for the same request.',
      ),
    earlyAfter: duration()
      .prefault('15s')
      .describe('When an early stream begins: a quarter of the 60 s at which common middleboxes cut.'),
    ping: duration().prefault('15s').describe('How often it is pinged, for the same reason.'),
    policy: z
      .enum(QUEUE_POLICIES)
      .prefault('priority')
      .describe(
        'Who goes first. priority: users before subagents before background, by shares 8 : 3 : 1, and within each ' +
          'who has used least. deadline: whose time is up first, which a request says (x-agentrm-deadline, in ' +
          'seconds) or its class: 15 s, 60 s, 240 s. fair-share: who has used least, whatever its class.',
      ),
  })
  .transform(({ mode, wait, earlyAfter, ping, policy }) => ({
    mode,
    policy,
    waitMs: wait,
    earlyAfterMs: earlyAfter,
    pingMs: ping,
  }))
  .prefault({})
  .describe('How turns wait.');

const lanes = z
  .strictObject({
    fixed: offOrWhole(1, 10_000)
      .prefault('off')
      .describe(
        'So many turns at once for each credential and model. off: as many as the upstream bears, which its ' +
          'answers tell; without contention nobody waits.',
      ),
    start: whole(1, 10_000)
      .prefault('32')
      .describe(
        'How many there are before any answer has come. Ten subagents of three users at once wait for nothing.',
      ),
  })
  .prefault({})
  .describe('How many turns run at the same time.');

const reaper = z
  .strictObject({
    dryRun: flag()
      .prefault('false')
      .describe('true: hung turns and abandoned runs are logged with their evidence, and none is ended.'),
    firstByte: duration()
      .prefault('120s')
      .describe('Without any byte. Models think 30 to 120 s, but send headers and pings meanwhile.'),
    betweenBytes: duration().prefault('120s').describe('Between two bytes of a stream, pings included.'),
    pingsOnly: duration()
      .prefault('280s')
      .describe(
        'Pings and nothing else. Less than the 300 s at which Claude Code gives up, so that it reads an error ' +
          'instead of a cut stream.',
      ),
    wholeResponse: duration()
      .prefault('10m')
      .describe(
        'A response that is not streamed, of a client that does not say how long it waits: the SDKs wait 10 min.',
      ),
    abandoned: offOrDuration()
      .prefault('30m')
      .describe(
        'A run of which no turn and no tool call is left, and with which nobody goes on for so long, is over: three ' +
          'times the longest command that Claude Code waits for. off: a run only ends with its answer.',
      ),
  })
  .transform(({ dryRun, firstByte, betweenBytes, pingsOnly, wholeResponse, abandoned }) => ({
    dryRun,
    abandonedMs: abandoned,
    firstByteMs: firstByte,
    betweenBytesMs: betweenBytes,
    pingsOnlyMs: pingsOnly,
    wholeResponseMs: wholeResponse,
  }))
  .prefault({})
  .describe(
    'When a turn counts as hung: its upstream is silent while its client reads. Time in the queue and a client ' +
      'that does not read never count.',
  );

export const proxy = z
  .strictObject({
    listen: listenAddress()
      .prefault('127.0.0.1:8484')
      .describe(
        'Where agents reach it; off: no proxy. Only this machine: the proxy trusts whoever reaches it as far as ' +
          'their own credentials go.',
      ),
    user: z
      .string()
      .prefault('nobody')
      .describe(
        'The local user as which the core runs when agentrmd is root. It needs nothing of its own: requests and ' +
          'credentials of strangers do not belong beside BPF.',
      ),
    upstreams,
    queue,
    lanes,
    reaper,
    agents: offOrWhole(1, 10_000)
      .prefault('off')
      .describe(
        'So many sessions may have a run under way at a time, its subagents included; the turns of others wait until ' +
          "one has ended. off: any number; lanes, limits and the host's memory are what is short.",
      ),
    retries: whole(0, 10)
      .prefault('2')
      .describe('Of a turn that hung or failed before anything was seen of it; as often as the SDKs.'),
    sessionTokens: offOrWhole(1, 1_000_000_000_000)
      .prefault('off')
      .describe(
        'Tokens that one session may use, input and output. off: whoever pays has limits of their own.',
      ),
    background: z
      .array(z.string().min(1).max(128))
      .prefault([])
      .describe(
        'Parts of names of models or clients (user-agent) whose turns are background work. None: nothing says ' +
          'so by itself. Background turns are served after users and subagents.\n' +
          'background: [heartbeat, claude-haiku-4-5]',
      ),
    body: size()
      .prefault('32M')
      .describe('The largest request: the limit of the Messages API. Larger ones are answered 413.'),
    bodies: size()
      .prefault('512M')
      .describe(
        'All requests that wait or run together: 16 of the largest, some thousands of usual ones. More are told ' +
          'to come again in a second.',
      ),
    connections: whole(1, 100_000)
      .prefault('4096')
      .describe('From clients at the same time. Eight times the 500 streams it was measured with.'),
    drain: duration()
      .prefault('10s')
      .describe(
        'How long a stop waits for turns under way. Most end within it; what is cut is asked for again by every client.',
      ),
  })
  .transform(({ body, bodies, drain, ...rest }) => ({
    ...rest,
    bodyBytes: body,
    bodiesBytes: bodies,
    drainMs: drain,
  }))
  .prefault({})
  .describe('The proxy for model APIs, and the scheduler behind it; see docs/proxy.md.');

/** Sizes in bytes, times in milliseconds; null is `off`. */
export type ProxyConfig = z.output<typeof proxy>;
