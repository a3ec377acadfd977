// SPDX-License-Identifier: Apache-2.0
import { z } from 'zod';

/**
 * What the wrapper and the daemon say to each other: the wrapper one JSON object a line (easy to
 * write in C), the daemon lines of words (easy to read in C).
 *
 * ```
 * run    → ack? note* (go CALL clone|move|none … | refuse CODE)
 * place  → placed | failed TEXT        (the child, on a connection of its own)
 * late   → nothing                     (a `go` came after the wrapper had started the command plainly)
 * adopt  → go CALL kept - | gone       (after a restart of the daemon)
 * end    → note* bye
 * feedback → note? bye                       (a hook of the agent, on a connection of its own)
 * ```
 */

/** The longest line that is accepted; a wrapper cuts the command to 16 KiB before it is escaped. */
export const MAX_LINE_BYTES = 64 * 1024;

const text = z.string();

const run = z.object({
  op: z.literal('run'),
  v: z.literal(1),
  argv: z.array(text).max(4096),
  cwd: text.optional(),
  /** How many directories above cwd its repository begins. */
  top: z.number().int().min(0).max(64).optional(),
  intent: text.optional(),
  session: text.optional(),
  agent: text.optional(),
  clone: z.boolean().optional(),
});

const end = z.object({
  op: z.literal('end'),
  code: z.number().int().min(0).max(255).optional(),
  signal: z.number().int().min(1).max(64).optional(),
});

const message = z.discriminatedUnion('op', [
  run,
  end,
  z.object({ op: z.literal('place'), v: z.literal(1), token: text }),
  z.object({ op: z.literal('feedback'), v: z.literal(1), session: text, command: text }),
  z.object({ op: z.literal('late') }),
  z.object({ op: z.literal('adopt'), v: z.literal(1), call: text }),
]);

export type WrapperMessage = z.infer<typeof message>;
export type RunMessage = z.infer<typeof run>;
export type EndMessage = z.infer<typeof end>;

/** Decodes one line; undefined if it is not a message of the protocol. */
export function parseMessage(line: string): WrapperMessage | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  const parsed = message.safeParse(value);
  return parsed.success ? parsed.data : undefined;
}

/** Splits a stream into lines without ever holding more than one line's bound. */
export class LineReader {
  readonly #onLine: (line: string) => void;
  readonly #onOverflow: () => void;
  #rest = Buffer.alloc(0);

  constructor(onLine: (line: string) => void, onOverflow: () => void) {
    this.#onLine = onLine;
    this.#onOverflow = onOverflow;
  }

  push(chunk: Buffer): void {
    let data = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10)) {
      if (end > MAX_LINE_BYTES) break;
      this.#onLine(data.toString('utf8', 0, end));
      data = data.subarray(end + 1);
    }
    if (data.length > MAX_LINE_BYTES) {
      this.#rest = Buffer.alloc(0);
      this.#onOverflow();
      return;
    }
    this.#rest = Buffer.from(data);
  }
}
