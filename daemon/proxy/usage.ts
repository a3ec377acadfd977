// SPDX-License-Identifier: Apache-2.0
import type { Usage } from '../scheduler/types.ts';
import type { TurnApi } from './routes.ts';

/**
 * The tokens that a response or an event of its stream tells of, as they count towards rate limits:
 * Anthropic leaves out what was read from the cache, OpenAI does not.
 * @param parsed the JSON of a whole response, or of one event
 */
export function usageOf(api: TurnApi, parsed: unknown): Usage | null {
  if (!isObject(parsed)) return null;
  const holder = api === 'messages' ? parsed.message : api === 'responses' ? parsed.response : undefined;
  const usage = isObject(holder) && isObject(holder.usage) ? holder.usage : parsed.usage;
  if (!isObject(usage)) return null;
  const [input, output] =
    api === 'chat'
      ? [usage.prompt_tokens, usage.completion_tokens]
      : [usage.input_tokens, usage.output_tokens];
  const counted = sum(input, api === 'messages' ? usage.cache_creation_input_tokens : undefined);
  const produced = sum(output);
  if (counted === undefined && produced === undefined) return null;
  return {
    ...(counted === undefined ? {} : { inputTokens: counted }),
    ...(produced === undefined ? {} : { outputTokens: produced }),
  };
}

/** Undefined unless the first is a count; what is no count adds nothing. */
function sum(first: unknown, second?: unknown): number | undefined {
  if (!isCount(first)) return undefined;
  return first + (isCount(second) ? second : 0);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
