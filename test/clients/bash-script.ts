// SPDX-License-Identifier: Apache-2.0
import type { Block } from './anthropic-events.ts';
import type { MessagesRequest, Script } from './model-api.ts';

/** Input of Claude Code's Bash tool. */
export interface BashInput {
  command: string;
  description?: string;
  timeout?: number;
  run_in_background?: boolean;
}

/** What the model is told about one finished tool call. */
export interface ToolResult {
  toolUseId: string;
  text: string;
  isError: boolean;
}

function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content.map((part: { text?: unknown }) => (typeof part.text === 'string' ? part.text : '')).join('');
}

/** All tool results that the request's history holds, oldest first. */
export function toolResults(request: MessagesRequest): ToolResult[] {
  return request.messages
    .flatMap((message) => (typeof message.content === 'string' ? [] : message.content))
    .filter((block) => block.type === 'tool_result')
    .map((block) => ({
      toolUseId: String(block.tool_use_id),
      text: textOf(block.content),
      isError: block.is_error === true,
    }));
}

function toolUse(round: number, place: number, input: BashInput): Block {
  return { type: 'tool_use', id: `toolu_${round}_${place}`, name: 'Bash', input: { ...input } };
}

/**
 * A model that has the agent run `rounds` of Bash commands, those of a round in parallel, and then ends its
 * turn with the text `done`. Requests without the Bash tool (titles and the like) get that text at once.
 */
export function bashScript(rounds: BashInput[][]): Script {
  return (request) => {
    const answered = new Set(toolResults(request).map((result) => result.toolUseId));
    const hasBash = request.tools?.some((tool) => tool.name === 'Bash') ?? false;
    const next = rounds.findIndex((_, round) => !answered.has(`toolu_${round}_0`));
    const inputs = hasBash ? (rounds[next] ?? []) : [];
    if (inputs.length === 0) return { content: [{ type: 'text', text: 'done' }] };
    return { content: inputs.map((input, place) => toolUse(next, place, input)) };
  };
}
