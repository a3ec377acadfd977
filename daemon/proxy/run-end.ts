// SPDX-License-Identifier: Apache-2.0
import type { TurnApi } from './routes.ts';

/** Why a response stopped that is the agent's answer to its user, by API. */
const ANSWERS: ReadonlySet<unknown> = new Set([
  ...['end_turn', 'stop_sequence', 'refusal'], // messages
  ...['stop', 'content_filter'], // chat
]);
/** And one after which its agent goes on. Whatever else there is (a limit was reached) tells neither. */
const CONTINUES: ReadonlySet<unknown> = new Set(['tool_use', 'pause_turn', 'tool_calls', 'function_call']);

/** Items of the Responses API that its client carries out; the API itself does the others. */
const CLIENT_CALLS: ReadonlySet<unknown> = new Set([
  'function_call',
  'custom_tool_call',
  'local_shell_call',
  'shell_call',
  'apply_patch_call',
  'computer_call',
]);

/**
 * Whether a response is the last of its run: an answer to the user, with no tool left to be called.
 * @param parsed the JSON of a whole response, or of one event
 * @returns undefined if it does not tell
 */
export function runEndOf(api: TurnApi, parsed: unknown): boolean | undefined {
  if (!isObject(parsed)) return undefined;
  if (api === 'responses') {
    const response = isObject(parsed.response) ? parsed.response : parsed;
    if (response.status !== 'completed' || !Array.isArray(response.output)) return undefined;
    return !response.output.some((item) => isObject(item) && CLIENT_CALLS.has(item.type));
  }
  const holder =
    api === 'messages' ? (isObject(parsed.delta) ? parsed.delta : parsed) : firstOf(parsed.choices);
  const reason = api === 'messages' ? holder?.stop_reason : holder?.finish_reason;
  if (ANSWERS.has(reason)) return true;
  return CONTINUES.has(reason) ? false : undefined;
}

function firstOf(list: unknown): Record<string, unknown> | undefined {
  const first: unknown = Array.isArray(list) ? list[0] : undefined;
  return isObject(first) ? first : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
