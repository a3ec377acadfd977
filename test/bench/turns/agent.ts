// SPDX-License-Identifier: Apache-2.0
import Anthropic, { APIError } from '@anthropic-ai/sdk';
import { MODEL } from './model.ts';

export interface AgentOptions {
  /** Where it sends its turns. */
  readonly url: string;
  /** Its account. */
  readonly key: string;
  readonly session: string;
}

export interface Turned {
  /** Null: answered to its end. */
  readonly error: string | null;
  readonly ms: number;
  readonly outputTokens: number;
}

/** An agent with the official SDK, which tries twice more what fails, as it does by itself. */
export class Agent {
  /** Answers that it got, by status, those that the SDK tried again included. */
  readonly statuses = new Map<number, number>();
  readonly #client: Anthropic;

  constructor({ url, key, session }: AgentOptions) {
    this.#client = new Anthropic({
      baseURL: url,
      apiKey: key,
      maxRetries: 2,
      logLevel: 'off',
      defaultHeaders: { 'x-claude-code-session-id': session },
      fetch: async (input, init) => {
        const response = await fetch(input, init);
        this.statuses.set(response.status, (this.statuses.get(response.status) ?? 0) + 1);
        return response;
      },
    });
  }

  async turn(text: string): Promise<Turned> {
    const startMs = performance.now();
    let outputTokens = 0;
    let error: string | null = 'the answer broke off';
    try {
      const events = await this.#client.messages.create({
        model: MODEL,
        max_tokens: 8_192,
        stream: true,
        messages: [{ role: 'user', content: text }],
      });
      for await (const event of events) {
        if (event.type === 'message_delta') outputTokens = event.usage.output_tokens;
        if (event.type === 'message_stop') error = null;
      }
    } catch (thrown) {
      error = thrown instanceof APIError && thrown.status ? `${thrown.status}` : String(thrown);
    }
    return { error, ms: performance.now() - startMs, outputTokens };
  }
}
