// SPDX-License-Identifier: Apache-2.0
import type { IncomingHttpHeaders } from 'node:http';
import type { TurnClass } from '../scheduler/types.ts';
import type { JsonScan, Span } from './json-scan.ts';
import type { TurnApi } from './routes.ts';

/** What a request says of itself: hints that place it in the queue, and never a permission. */
export interface Identity {
  /** The conversation; null if the request names none. */
  readonly session: string | null;
  readonly agent: string | null;
  readonly class: TurnClass;
  /** Empty if it names none. */
  readonly model: string;
  readonly streaming: boolean;
  readonly retryable: boolean;
  readonly runStart: boolean;
  /** How long the client waits, by its own word. */
  readonly clientTimeoutMs: number | null;
  /** By when it should be served, by its own word. */
  readonly deadlineMs: number | null;
}

/** The members of a body that {@link identify} looks at. */
export const WANTED: ReadonlySet<string> = new Set([
  'model',
  'stream',
  'store',
  'background',
  'metadata',
  'messages',
  'input',
  'prompt_cache_key',
]);

/** A name out of a request is used as a key in tables: longer ones are cut. */
const MAX_NAME = 128;
/** A small member that is larger is none. */
const MAX_MEMBER_BYTES = 16 * 1024;
/** A message that is larger is judged by its beginning alone. */
const MAX_MESSAGE_BYTES = 1024 * 1024;
/** Larger ones are no timeout that anybody waits for: a day. */
const MAX_TIMEOUT_S = 86_400;

/** Headers that name the conversation, best first: Claude Code's, and ours for those that have none. */
const SESSION_HEADERS = ['x-claude-code-session-id', 'x-agentrm-session'];

/** Codex's, new and old. Their names are nobody's in particular, so `metadata.user_id` comes before them. */
const CODEX_HEADERS = ['session-id', 'session_id', 'conversation_id'];

/** What Claude Code puts into a user's message beside tool results; nobody has typed it. */
const INJECTED = '<system-reminder>';

/** @param isBackground whether configuration counts this model or agent as background work */
export function identify(
  api: TurnApi,
  headers: IncomingHttpHeaders,
  body: { readonly bytes: Buffer; readonly scan: JsonScan },
  isBackground: (model: string, userAgent: string) => boolean,
): Identity {
  const member = (name: string): unknown => parse(body.bytes, body.scan.member(name), MAX_MEMBER_BYTES);
  const model = nameOf(member('model')) ?? '';
  const agent = header(headers, 'x-claude-code-agent-id') ?? header(headers, 'x-agentrm-agent');
  // The Responses API stores unless told otherwise; the others only when told to.
  const stored = api === 'responses' ? member('store') !== false : member('store') === true;
  return {
    session: sessionOf(headers, member),
    agent,
    class: classOf(headers, agent, () => isBackground(model, header(headers, 'user-agent') ?? '')),
    model,
    streaming: member('stream') === true,
    retryable: !stored && member('background') !== true,
    runStart: runStarts(api, body),
    clientTimeoutMs: secondsOf(header(headers, 'x-stainless-timeout')),
    deadlineMs: secondsOf(header(headers, 'x-agentrm-deadline')),
  };
}

/**
 * The models that share a rate limit: a model without the date or the alias of its version.
 * `claude-sonnet-4-20250514` is of `claude-sonnet-4`.
 */
export function modelClassOf(model: string): string {
  const base = model
    .toLowerCase()
    .replace(/\[1m\]$/, '')
    .replace(/(-\d{8}|-\d{4}-\d{2}-\d{2}|-latest)$/, '');
  return base === '' ? 'unknown' : base;
}

function classOf(headers: IncomingHttpHeaders, agent: string | null, isBackground: () => boolean): TurnClass {
  const declared = header(headers, 'x-agentrm-class');
  if (declared === 'background' || isBackground()) return 'background';
  return agent !== null || declared === 'subagent' || header(headers, 'x-openai-subagent') !== null
    ? 'subagent'
    : 'interactive';
}

function sessionOf(headers: IncomingHttpHeaders, member: (name: string) => unknown): string | null {
  const named = firstOf(headers, SESSION_HEADERS);
  if (named !== null) return named;
  const metadata = member('metadata');
  const user = isObject(metadata) ? metadata.user_id : undefined;
  const ofUser = typeof user === 'string' ? sessionOfUser(user) : null;
  return ofUser ?? firstOf(headers, CODEX_HEADERS) ?? nameOf(member('prompt_cache_key'));
}

function firstOf(headers: IncomingHttpHeaders, names: readonly string[]): string | null {
  for (const name of names) {
    const value = header(headers, name);
    if (value !== null) return value;
  }
  return null;
}

/** `metadata.user_id` of Claude Code: JSON with the session, or in older versions `user_…_session_ID`. */
function sessionOfUser(user: string): string | null {
  if (user.startsWith('{')) {
    try {
      const parsed: unknown = JSON.parse(user);
      if (isObject(parsed)) return nameOf(parsed.session_id);
    } catch {
      return null;
    }
  }
  return nameOf(/_session_([\w-]+)$/.exec(user)?.[1]);
}

/** Whether the newest message is what somebody said, and not only what tools returned. */
function runStarts(
  api: TurnApi,
  { bytes, scan }: { readonly bytes: Buffer; readonly scan: JsonScan },
): boolean {
  const list = api === 'responses' ? 'input' : 'messages';
  const whole = scan.member(list);
  if (whole !== undefined && bytes[whole.start] === 0x22) return true;
  const elements = scan.elements(list);
  for (let at = elements.length - 1; at >= 0; at -= 1) {
    const span = elements[at] as Span;
    if (span.end - span.start > MAX_MESSAGE_BYTES)
      return !/"tool_result"|_output"|"role":\s*"tool"/.test(headOf(bytes, span));
    const message = parse(bytes, span, MAX_MESSAGE_BYTES);
    const spoken = isObject(message) ? saidBySomebody(message) : undefined;
    if (spoken !== undefined) return spoken;
  }
  return false;
}

/** @returns undefined for a message that tells neither: the model's own, or instructions. */
function saidBySomebody({ role, type, content }: Record<string, unknown>): boolean | undefined {
  if (role === 'tool' || (typeof type === 'string' && type.endsWith('_output'))) return false;
  if (role !== 'user') return undefined;
  if (typeof content === 'string') return true;
  if (!Array.isArray(content)) return undefined;
  const blocks = content.filter(isObject);
  const said = blocks.some(
    (block) =>
      block.type !== 'tool_result' &&
      !(typeof block.text === 'string' && block.text.trimStart().startsWith(INJECTED)),
  );
  if (said) return true;
  return blocks.some(({ type }) => type === 'tool_result') ? false : undefined;
}

function headOf(bytes: Buffer, { start, end }: Span): string {
  return bytes.toString('latin1', start, Math.min(end, start + MAX_MEMBER_BYTES));
}

function parse(bytes: Buffer, span: Span | undefined, maxBytes: number): unknown {
  if (span === undefined || span.end - span.start > maxBytes) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8', span.start, span.end));
  } catch {
    return undefined;
  }
}

function header(headers: IncomingHttpHeaders, name: string): string | null {
  const value = headers[name];
  return nameOf(Array.isArray(value) ? value[0] : value);
}

function nameOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value.slice(0, MAX_NAME) : null;
}

function secondsOf(value: string | null): number | null {
  const seconds = Number(value ?? Number.NaN);
  return seconds > 0 && seconds <= MAX_TIMEOUT_S ? seconds * 1000 : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
